// A QR code, drawn from its modules: rows of 0 and 1, dark ones are 1. Always dark on light, as cameras want it.

import { s } from "./dom.js";

const QUIET = 4;  // modules of light around it, which the standard asks for

/** The drawing; `label` says to those who do not see it what it leads to. */
export function qrCode(rows, label) {
  const size = rows.length + 2 * QUIET;
  const path = rows.flatMap((row, y) => [...row.matchAll(/1+/g)].map((run) =>
    `M${run.index + QUIET} ${y + QUIET}h${run[0].length}v1h-${run[0].length}z`)).join("");
  return s("svg", { class: "qr", viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": label, "shape-rendering": "crispEdges" },
    s("rect", { width: size, height: size, class: "light" }), s("path", { d: path, class: "dark" }));
}

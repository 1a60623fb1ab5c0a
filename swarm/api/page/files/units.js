// Figures as people read them: sizes in binary units, rates in decimal ones.

export function size(bytes) {
  if (!bytes) return "0";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  const value = bytes / 2 ** (10 * power);
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

export function rate(bytesPerS) {
  if (!bytesPerS) return "";
  return bytesPerS >= 1e9 ? `${(bytesPerS / 1e9).toFixed(1)} GB/s` : `${Math.round(bytesPerS / 1e6)} MB/s`;
}

export function count(n) {
  return Math.round(n).toLocaleString("en");
}

export function seconds(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 90) return `${value.toFixed(1)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

export function speed(tokensPerS) {
  return `${tokensPerS >= 100 ? Math.round(tokensPerS) : tokensPerS.toFixed(1)} tok/s`;
}

export function day(time) {
  const then = new Date(time);
  const days = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / 864e5);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days < 7) return "This week";
  return then.toLocaleDateString("en", { month: "long", year: "numeric" });
}

// What is said of a device, in the drawing, the table and elsewhere. Pure.

/** In the order in which a token passes them; those without layers after them, those that are gone last. */
export function inOrder(devices) {
  const rank = (device) => (device.health === "lost" ? 2e6 : device.shards?.length ? Math.min(...device.shards.map((shard) => shard.first)) : 1e6);
  const colours = new Map([...devices].sort((a, b) => (a.peer < b.peer ? -1 : 1)).map((device, i) => [device.peer, i % 8]));
  return [...devices].sort((a, b) => rank(a) - rank(b)).map((device) => ({ ...device, colour: colours.get(device.peer) }));
}

/** What a device is doing, in a word or a line. */
export function stateOf(device) {
  const { state, capabilities: caps } = device;
  if (device.excluded) return device.excluded;
  if (device.health === "lost") return `gone: ${device.lost_why}`;
  if (caps?.rests) return `rests: ${caps.rests}`;
  if (state.fetching < 1) return `fetching ${Math.floor(state.fetching * 100)} %`;
  if (device.shards?.length && !state.shard_ready) return "loading";
  if (caps?.condition) return caps.condition;
  if (device.health === "suspect") return "quiet for a moment";
  return device.shards?.length ? "ready" : "free";
}

export function memoryOf(device) {
  const total = device.capabilities?.memory_bytes ?? 0;
  return { total, used: Math.max(total - device.state.memory_free_bytes, 0) };
}

export function layersOf(shard) {
  return `${shard.embed ? "embedding + " : ""}layers ${shard.first}–${shard.end - 1}${shard.head ? " + head" : ""}${partOf(shard)}`;
}

/** How much of each layer, where a device shares them with others. */
export function partOf(shard) {
  const share = shard.share === undefined ? 1 : shard.share; // an older node shares none
  return share === null ? ", a part of each" : share < 1 ? `, ${Math.round(100 * share)} % of each` : "";
}

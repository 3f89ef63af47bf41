/*
 * A process whose work is done flushes the usage that is not acknowledged before it exits. Timers and connections of the
 * client do not keep it alive for that.
 */

interface Flushable {
  flush(): Promise<boolean>;
}

const pending = new Set<Flushable>();
/** Keeps the process alive during the flush, which has its own bound. */
const KEEP_ALIVE_MS = 60_000;

async function flushAll(): Promise<void> {
  const keepAlive = setTimeout(() => {}, KEEP_ALIVE_MS);
  const all = [...pending];
  pending.clear();
  process.off('beforeExit', flushAll);
  await Promise.all(all.map((one) => one.flush()));
  clearTimeout(keepAlive);
}

/** Flushes once when the process is about to exit. The returned function cancels it. */
export function flushAtExit(recorder: Flushable): () => void {
  if (pending.size === 0) process.on('beforeExit', flushAll);
  pending.add(recorder);
  return () => {
    pending.delete(recorder);
    if (pending.size === 0) process.off('beforeExit', flushAll);
  };
}

/*
 * A process whose work is done flushes the usage that is not acknowledged before it exits. Timers and connections of the
 * client do not keep it alive for that.
 */

interface Flushable {
  /** Keeps the process alive, within a bound. */
  flush(): Promise<boolean>;
}

const pending = new Set<Flushable>();

function flushAll(): void {
  process.off('beforeExit', flushAll);
  for (const recorder of pending) void recorder.flush();
  pending.clear();
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

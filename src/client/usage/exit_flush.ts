/*
 * Sends unacknowledged usage before the process exits, because the timers and connections of the client do not keep the
 * process alive.
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

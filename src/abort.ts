interface Registration {
  readonly callbacks: Set<() => void>;
  readonly listener: () => void;
}

/**
 * The callbacks of each signal. They share one listener, because Node 20 warns of a leak from the eleventh listener on.
 */
const registrations = new WeakMap<AbortSignal, Registration>();

/**
 * Calls `callback` once when the signal aborts, or immediately if it has already aborted. The returned function removes the
 * callback.
 */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  if (!signal) return () => {};
  if (signal.aborted) {
    callback();
    return () => {};
  }
  const { callbacks, listener } = registrations.get(signal) ?? listen(signal);
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size > 0 || registrations.get(signal)?.listener !== listener) return;
    registrations.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}

function listen(signal: AbortSignal): Registration {
  const callbacks = new Set<() => void>();
  const listener = () => {
    registrations.delete(signal);
    // A callback that another callback removes is not called: the iteration of a set skips elements that are deleted.
    for (const callback of callbacks) callback();
  };
  const registration = { callbacks, listener };
  registrations.set(signal, registration);
  signal.addEventListener('abort', listener, { once: true });
  return registration;
}

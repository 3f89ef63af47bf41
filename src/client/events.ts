import { onAbort } from '../abort.js';

/** Options of listeners, iterations and waits. */
export interface ListenOptions {
  /** Removes the listener, or ends the iteration or the wait, when it aborts. */
  readonly signal?: AbortSignal | undefined;
}

type Listener = (value: never) => unknown;

/**
 * Calls listeners in the order in which they were added. When a listener throws or returns a promise that rejects,
 * `failed` receives the error, and the remaining listeners are still called.
 */
export class Events<Map> {
  private readonly listeners = new globalThis.Map<keyof Map, Set<Listener>>();

  constructor(private readonly failed: (error: unknown, event: keyof Map) => void) {}

  on<E extends keyof Map>(event: E, listener: (value: Map[E]) => unknown, { signal }: ListenOptions = {}): () => void {
    if (typeof listener !== 'function') throw new TypeError('A listener must be a function');
    if (signal?.aborted) return () => {};
    const listeners = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, listeners);
    // The same function may be added twice, and each registration is removed separately.
    const own: Listener = (value) => listener(value);
    listeners.add(own);
    const release = onAbort(signal, () => listeners.delete(own));
    return () => {
      listeners.delete(own);
      release();
    };
  }

  emit<E extends keyof Map>(event: E, value: Map[E]): void {
    for (const listener of [...(this.listeners.get(event) ?? [])]) {
      try {
        const result = listener(value as never);
        if (result instanceof Promise) result.catch((error: unknown) => this.failed(error, event));
      } catch (error) {
        this.failed(error, event);
      }
    }
  }
}

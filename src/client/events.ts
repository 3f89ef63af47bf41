import { onAbort } from '../abort.js';

/** Until when something listens. */
export interface ListenOptions {
  /** Ends it when it aborts. */
  readonly signal?: AbortSignal | undefined;
}

type Listener = (value: never) => unknown;

/**
 * Calls listeners in the order in which they came. One that throws, or gives a promise that rejects, stops neither the
 * others nor what the event is about: it is handed to `failed`.
 */
export class Events<Map> {
  private readonly listeners = new globalThis.Map<keyof Map, Set<Listener>>();

  constructor(private readonly failed: (error: unknown, event: keyof Map) => void) {}

  on<E extends keyof Map>(event: E, listener: (value: Map[E]) => unknown, { signal }: ListenOptions = {}): () => void {
    if (typeof listener !== 'function') throw new TypeError('A listener must be a function');
    if (signal?.aborted) return () => {};
    const listeners = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, listeners);
    // The same function may listen twice, and each time ends by itself.
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
        const given = listener(value as never);
        if (given instanceof Promise) given.catch((error: unknown) => this.failed(error, event));
      } catch (error) {
        this.failed(error, event);
      }
    }
  }
}

/** Reads the parts of a stream of an SDK, one at a time. */
export interface PartReader<P> {
  next(): Promise<IteratorResult<P, unknown>>;
  /** Closes the stream. Does not wait for it: a package may be stuck. */
  close(): void;
}

/** The reader of a stream or of another iterable. */
export function readParts<P>(source: ReadableStream<P> | AsyncIterable<P>): PartReader<P> {
  if (source instanceof ReadableStream) return ofStream(source);
  const iterator = source[Symbol.asyncIterator]();
  return {
    next: () => iterator.next(),
    close: () => void Promise.resolve(iterator.return?.()).catch(() => {}),
  };
}

function ofStream<P>(stream: ReadableStream<P>): PartReader<P> {
  const reader = stream.getReader();
  return {
    next: () => reader.read() as Promise<IteratorResult<P, unknown>>,
    close: () => void reader.cancel().catch(() => {}),
  };
}

/** Reads the parts of a stream of an SDK, one at a time. */
export interface PartReader<P> {
  next(): Promise<IteratorResult<P, unknown>>;
  /** Closes the stream, which ends a pending `next`. Does not wait for it: a package may be stuck. */
  close(): void;
}

/** The reader of a stream or of another iterable. */
export const readParts = <P>(source: ReadableStream<P> | AsyncIterable<P>): PartReader<P> =>
  source instanceof ReadableStream ? ofStream(source) : ofIterable(source);

function ofStream<P>(stream: ReadableStream<P>): PartReader<P> {
  const reader = stream.getReader();
  return {
    next: () => reader.read() as Promise<IteratorResult<P, unknown>>,
    close: () => void reader.cancel().catch(() => {}),
  };
}

function ofIterable<P>(iterable: AsyncIterable<P>): PartReader<P> {
  const iterator = iterable[Symbol.asyncIterator]();
  let endPending = () => {};
  return {
    next: () =>
      new Promise((resolve, reject) => {
        endPending = () => resolve({ value: undefined, done: true });
        iterator.next().then(resolve, reject);
      }),
    close: () => {
      endPending();
      void Promise.resolve(iterator.return?.()).catch(() => {});
    },
  };
}

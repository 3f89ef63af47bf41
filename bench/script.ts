/* The script side of `runJob` in lab.ts, and the loop with which scripts generate load. */

/** Runs every job that the benchmark sends and returns its result. Exits when the benchmark ends. */
export function serveJobs<Job>(work: (job: Job) => Promise<object>): void {
  process.on('disconnect', () => process.exit());
  process.on('message', (job: Job) => {
    work(job).then(
      (result) => process.send?.(result),
      (error: Error) => process.send?.({ error: String(error.stack) }),
    );
  });
  console.log('ready');
}

/** The result of a loop of calls. */
export interface LoopResult {
  readonly perSecond: number;
  /** Duration of each call in ms. */
  readonly latencies: number[];
}

/** Keeps `concurrency` calls in flight for `seconds` and measures those that begin after the warm-up. */
export async function closedLoop(
  { concurrency, seconds, warmUpSeconds }: { concurrency: number; seconds: number; warmUpSeconds: number },
  call: (worker: number) => Promise<unknown>,
): Promise<LoopResult> {
  const latencies: number[] = [];
  const from = performance.now() + warmUpSeconds * 1000;
  const until = from + seconds * 1000;
  const runWorker = async (number: number) => {
    for (let startedAt = performance.now(); startedAt < until; ) {
      await call(number);
      const ended = performance.now();
      if (startedAt >= from && ended <= until) latencies.push(ended - startedAt);
      startedAt = ended;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, (_, number) => runWorker(number)));
  return { perSecond: latencies.length / seconds, latencies };
}

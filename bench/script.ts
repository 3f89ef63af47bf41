/*
 * The other end of `ask` in lab.ts: what the scripts of the bench do with their
 * jobs, and the loop by which those of them that make load make it.
 */

/** Answers every job that the bench sends; ends when the bench does. */
export function serveJobs<Job>(work: (job: Job) => Promise<object>): void {
  process.on('disconnect', () => process.exit());
  process.on('message', (job: Job) => {
    work(job).then(
      (answer) => process.send?.(answer),
      (error: Error) => process.send?.({ error: String(error.stack) }),
    );
  });
  console.log('ready');
}

/** What a loop of calls has measured. */
export interface LoopResult {
  readonly perSecond: number;
  /** Milliseconds that each call took. */
  readonly latencies: number[];
}

/** Keeps so many calls in flight for so long, and measures those that begin after the warm-up. */
export async function closedLoop(
  { concurrency, seconds, warmUpSeconds }: { concurrency: number; seconds: number; warmUpSeconds: number },
  call: (lane: number) => Promise<unknown>,
): Promise<LoopResult> {
  const latencies: number[] = [];
  const from = performance.now() + warmUpSeconds * 1000;
  const until = from + seconds * 1000;
  const lane = async (number: number) => {
    for (let begun = performance.now(); begun < until; ) {
      await call(number);
      const ended = performance.now();
      if (begun >= from && ended <= until) latencies.push(ended - begun);
      begun = ended;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, (_, number) => lane(number)));
  return { perSecond: latencies.length / seconds, latencies };
}

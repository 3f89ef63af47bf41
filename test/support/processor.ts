import { readdirSync, readFileSync } from 'node:fs';

/*
 * Times without the share of other processes, so that a busy machine does not count as a delay of the tested program.
 */

/**
 * The total time, in ms, for which a thread was ready to run while the processors ran others; 0 on a system that does
 * not record it.
 */
function runDelayMs(statistics: string): number {
  try {
    const [, delayNs] = readFileSync(statistics, 'utf8').split(' ');
    return Number(delayNs) / 1e6;
  } catch {
    return 0;
  }
}

/** The run delay of the calling thread. */
const ownRunDelayMs = () => runDelayMs('/proc/thread-self/schedstat');

/** The run delay of the main thread of a process. */
const mainRunDelayMs = (pid: number) => runDelayMs(`/proc/${pid}/task/${pid}/schedstat`);

/** The run delays of the other threads of a process, by thread. */
function otherRunDelaysMs(pid: number): ReadonlyMap<string, number> {
  const threads = readdirSync(`/proc/${pid}/task`).filter((thread) => thread !== `${pid}`);
  return new Map(threads.map((thread) => [thread, runDelayMs(`/proc/${pid}/task/${thread}/schedstat`)]));
}

/**
 * Measures a wait for another process from now until the returned function is called, in ms.
 * @param withEngine the wait includes the thread of the embedded engine, which is the busiest besides the main thread.
 */
export function measureWait(pid: number, { withEngine = false } = {}): () => number {
  const moment = () => performance.now() - ownRunDelayMs() - mainRunDelayMs(pid);
  const others = withEngine ? otherRunDelaysMs(pid) : new Map();
  const started = moment();
  return () => {
    const waited = moment() - started;
    const later = withEngine ? [...otherRunDelaysMs(pid)] : [];
    return Math.max(0, waited - Math.max(0, ...later.map(([thread, ms]) => ms - (others.get(thread) ?? ms))));
  };
}

const INTERVAL_MS = 5;

/** Measures the longest delay of the event loop from now until the returned function is called, in ms. */
export function measureLoopLag(): () => number {
  const moment = () => performance.now() - ownRunDelayMs();
  let last = moment();
  let longest = 0;
  const timer = setInterval(() => {
    const now = moment();
    longest = Math.max(longest, now - last - INTERVAL_MS);
    last = now;
  }, INTERVAL_MS);
  return () => {
    clearInterval(timer);
    return longest;
  };
}

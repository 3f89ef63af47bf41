import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 10;
/** The real clock, also while a test replaces it. */
const now = performance.now.bind(performance);

/** Waits until a condition holds; throws with its description after `ms`. */
export async function until(
  holds: () => boolean | Promise<boolean>,
  description = String(holds),
  ms = 30_000,
): Promise<void> {
  for (const end = now() + ms; !(await holds()); await sleep(POLL_MS))
    if (now() > end) throw new Error(`not within ${ms} ms: ${description}`);
}

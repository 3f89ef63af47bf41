import { constants } from 'node:os';

const STOP = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** npm forwards the Ctrl-C that the terminal has already sent to the service: two signals within this time count as one. */
const SAME_SIGNAL_MS = 1_000;
const PARENT_CHECK_MS = 500;

let stop: Promise<string> | undefined;

/**
 * Resolves with the reason when the service has to stop: a signal, or the end of the npm process that started it. A
 * start in progress is finished first. A second signal ends the process at once, unless it arrives within a second of
 * the first.
 */
export function stopRequest(): Promise<string> {
  stop ??= new Promise((resolve) => {
    let first: number | undefined;
    const onSignal = (signal: NodeJS.Signals) => {
      if (first !== undefined && performance.now() - first > SAME_SIGNAL_MS)
        process.exit(128 + constants.signals[signal]);
      first ??= performance.now();
      resolve(signal);
    };
    for (const signal of STOP) process.on(signal, onSignal);
    // A signal to npm ends npm and its shell; shells such as dash do not forward it.
    if (process.env['npm_lifecycle_event'] !== undefined)
      onEndOfParent(() => resolve('npm, which started it, has ended'));
  });
  return stop;
}

function onEndOfParent(onEnded: () => void): void {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    onEnded();
  }, PARENT_CHECK_MS);
  timer.unref();
}

import type { Settings } from './config.js';
import { limits } from './limits.js';
import type { Log } from './log.js';
import { expireReservations } from './store/budgets/reservations.js';
import { pauseViolated } from './store/experiments/guardrails.js';
import { type EncryptionReport, openEncryption } from './store/keys/encryption.js';
import { runMaintenance } from './store/maintenance/maintenance.js';
import type { Store } from './store/store.js';

/** The first run is soon, because a service may be restarted often, and not at the same time on all replicas. */
const FIRST_RUN_MS = { min: 60_000, max: 300_000 };
const INTERVAL_MS = 3_600_000;
/**
 * The interval at which reservations of crashed processes are released. Reserve also releases expired reservations when
 * a budget has not enough left.
 */
const EXPIRY_MS = 5_000;

/**
 * Starts the tasks of the service that no call starts: the hourly maintenance, and the check of the stored API keys,
 * which is also done when the state has been replaced, for example after a restore.
 * @param checked the result of the check at the start; a later one is logged if it differs.
 * @returns a function that ends the tasks. A task in progress ends after its current statement.
 */
export function startBackgroundTasks(
  store: Store,
  {
    ENCRYPTION_KEY,
    HISTORY_RETENTION: historyMs,
    USAGE_RETENTION: usageMs,
  }: Pick<Settings, 'ENCRYPTION_KEY' | 'HISTORY_RETENTION' | 'USAGE_RETENTION'>,
  checked: EncryptionReport,
  log: Log,
): () => Promise<void> {
  const closing = new AbortController();
  const { signal } = closing;
  const keys = new KeyCheck(store, ENCRYPTION_KEY, checked, log);
  let maintenance = Promise.resolve();
  let timer: NodeJS.Timeout;
  const schedule = (delayMs: number) => {
    timer = setTimeout(run, delayMs).unref();
  };
  const run = () => {
    void keys.check();
    maintenance = runMaintenance(store, { historyMs, usageMs }, signal)
      .catch((error) => logFailure(error, log))
      .finally(() => {
        if (!signal.aborted) schedule(INTERVAL_MS);
      });
  };
  schedule(FIRST_RUN_MS.min + Math.random() * (FIRST_RUN_MS.max - FIRST_RUN_MS.min));
  const periodic = [expiryOf(store, log), guardrailsOf(store, log)];
  const unsubscribe = store.subscribe({ replaced: () => void keys.check() });
  return async () => {
    closing.abort();
    clearTimeout(timer);
    unsubscribe();
    await Promise.all([maintenance, keys.end(), ...periodic.map((one) => one.end())]);
  };
}

interface PeriodicOptions {
  readonly intervalMs: number;
  /** The text of the log if it fails. */
  readonly failure: string;
  readonly run: (signal: AbortSignal) => Promise<void>;
}

/** Work that is repeated, not at the same time on all replicas. An outage is logged once. */
class Periodic {
  private running: Promise<unknown> = Promise.resolve();
  private timer: NodeJS.Timeout | undefined;
  private failed = false;
  private readonly ending = new AbortController();

  constructor(
    private readonly options: PeriodicOptions,
    private readonly log: Log,
  ) {
    this.schedule();
  }

  end(): Promise<unknown> {
    this.ending.abort();
    clearTimeout(this.timer);
    return this.running;
  }

  private schedule(): void {
    if (this.ending.signal.aborted) return;
    const delay = this.options.intervalMs * (0.9 + Math.random() / 5);
    this.timer = setTimeout(() => {
      this.running = this.run().finally(() => this.schedule());
    }, delay).unref();
  }

  private async run(): Promise<void> {
    try {
      await this.options.run(this.ending.signal);
      this.failed = false;
    } catch (err) {
      if (!this.failed) this.log.warn({ err }, this.options.failure);
      this.failed = true;
    }
  }
}

/** Ends reservations that have expired, while there are budgets. */
const expiryOf = (store: Store, log: Log): Periodic =>
  new Periodic(
    {
      intervalMs: EXPIRY_MS,
      failure: 'expired reservations could not be released; it is tried again',
      async run(signal) {
        if (store.state.budgets.size > 0) await expireReservations(store.database.knex, { signal });
      },
    },
    log,
  );

/** Pauses experiments that violate a guardrail, while experiments are running. */
const guardrailsOf = (store: Store, log: Log): Periodic =>
  new Periodic(
    {
      intervalMs: limits.guardrailMs,
      failure: 'the guardrails of experiments could not be checked; it is tried again',
      async run(signal) {
        if (store.state.experiments.runningCount === 0) return;
        const failures: unknown[] = [];
        const paused = await pauseViolated(store, (error) => failures.push(error), signal);
        if (paused.length > 0) log.warn({ experiments: paused }, 'paused experiments that violate a guardrail');
        if (failures.length > 0) throw failures[0];
      },
    },
    log,
  );

/** Checks the stored API keys, one check at a time, and logs what differs from the last check. */
class KeyCheck {
  private last: Promise<unknown> = Promise.resolve();
  private isEnding = false;

  constructor(
    private readonly store: Store,
    private readonly setting: string,
    private report: EncryptionReport,
    private readonly log: Log,
  ) {}

  check(): Promise<unknown> {
    this.last = this.last.then(() => this.run()).catch((error) => logFailure(error, this.log));
    return this.last;
  }

  end(): Promise<unknown> {
    this.isEnding = true;
    return this.last;
  }

  private async run(): Promise<void> {
    if (this.isEnding) return;
    const report = await openEncryption(this.store, this.setting);
    const isChanged = stateOf(report) !== stateOf(this.report);
    this.report = report;
    if (isChanged || report.rebound > 0) logEncryption(report, this.log);
    if (isChanged && !report.problem && report.unreadable.length === 0)
      this.log.info('all stored API keys can be read again');
  }
}

/** The part of a report that is logged when it changes. */
const stateOf = ({ problem, unreadable }: EncryptionReport): string => JSON.stringify([problem, unreadable]);

function logFailure(error: unknown, log: Log): void {
  const errors: unknown[] = error instanceof AggregateError ? error.errors : [error];
  for (const err of errors) log.warn({ err }, 'a background task failed; it runs again within an hour');
}

/** Logs the state of the stored API keys. Problems do not prevent the service from running. */
export function logEncryption({ problem, unreadable, rebound }: EncryptionReport, log: Log): void {
  if (problem?.reason === 'ENCRYPTION_KEY_WRONG')
    log.error(problem, 'ENCRYPTION_KEY is not the encryption key of the stored API keys; they cannot be read');
  else if (problem && problem.problem !== 'is not set') log.error(problem, 'ENCRYPTION_KEY cannot be used');
  else if (problem) log.info('ENCRYPTION_KEY is not set; API keys cannot be stored or read');
  if (unreadable.length > 0)
    log.error({ unreadable: unreadable.slice(0, 100), count: unreadable.length }, 'stored API keys cannot be read');
  if (rebound > 0) log.info({ rebound }, 're-encrypted the API keys of the imported database, bound to their rows');
}

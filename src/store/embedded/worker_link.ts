import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker, type WorkerOptions } from 'node:worker_threads';
import type { Answer, Request, WorkerSettings } from './worker_messages.js';

/**
 * V8 gives a worker 4 MB of stack. PostgreSQL's own limit (2 MB of WebAssembly stack) needs far more of V8's, so that
 * deeply nested JSON or a recursive function broke the engine (PGlite, RangeError swallowed, state corrupt). With room
 * enough PostgreSQL notices first and answers 54001. Measured: 64 MB is too little, 256 MB is enough. The memory is
 * reserved, not used.
 */
const STACK_MB = 256;
/** The first open runs initdb: 2.4 to 3.5 s here, several times that on a small machine. */
const OPEN_WITHIN_MS = 60_000;
/** The time allowed for one answer is counted in so many steps; see `#watch`. */
const WATCH_STEPS = 10;

/** The engine went away under its client: maps to UNAVAILABLE, as the death of a PostgreSQL server does. */
export class EngineLostError extends Error {
  override readonly name = 'EngineLostError';
  readonly code = 'ECONNRESET';
  constructor(reason: string, options?: ErrorOptions) {
    super(`Connection terminated unexpectedly: ${reason}`, options);
  }
}

/** The engine could not open its database. `code` is the operating system's, where there is one. */
export class EngineOpenError extends Error {
  override readonly name = 'EngineOpenError';
  constructor(
    message: string,
    readonly code?: string,
  ) {
    super(message);
  }
}

type Output = (bytes: Uint8Array<ArrayBuffer>) => void;

interface Pending {
  onOutput: Output;
  resolve: (bytes: Uint8Array<ArrayBuffer> | undefined) => void;
  reject: (error: Error) => void;
  watch: NodeJS.Timeout | undefined;
  steps: number;
}

/** One worker with an open database, from its opening to its end. Requests are answered in order, one at a time. */
export class WorkerLink {
  #pending: Pending | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #lost: EngineLostError | undefined;
  #ended: Promise<void> | undefined;
  readonly #whenLost: (error: EngineLostError) => void;
  /** Resolves, with the reason, when the engine is gone: crashed, wedged or closed. */
  readonly lost: Promise<EngineLostError>;

  private constructor(
    private readonly worker: Worker,
    private readonly wedgedAfterMs: number,
  ) {
    let whenLost: ((error: EngineLostError) => void) | undefined;
    this.lost = new Promise((resolve) => {
      whenLost = resolve;
    });
    this.#whenLost = (error) => whenLost?.(error);
    worker.on('message', (message: Answer) => this.#hear(message));
    worker.on('error', (error) => this.#lose(new EngineLostError(`the embedded database crashed (${error.message})`)));
    worker.on('exit', () => this.#lose(new EngineLostError('the embedded database exited')));
  }

  static async open(settings: WorkerSettings, wedgedAfterMs: number): Promise<WorkerLink> {
    const worker = startWorker(settings);
    try {
      await opened(worker);
    } catch (error) {
      await worker.terminate();
      throw error;
    }
    return new WorkerLink(worker, wedgedAfterMs);
  }

  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Sends a request when the ones before it are answered. Rejects with EngineLostError when the engine dies first. */
  request(
    request: Request,
    onOutput: Output = ignore,
    withinMs = this.wedgedAfterMs,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const answered = this.#turn.then(() => this.#send(request, onOutput, withinMs));
    this.#turn = answered.catch(ignore);
    return answered;
  }

  /** Ends the worker. Resolves when its thread is gone, so that another may open the directory. */
  async end(reason: string): Promise<void> {
    this.#lose(new EngineLostError(reason));
    await this.#ended;
  }

  #send(request: Request, onOutput: Output, withinMs: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    return new Promise((resolve, reject) => {
      this.#pending = { onOutput, resolve, reject, watch: undefined, steps: 0 };
      this.#watch(this.#pending, withinMs);
      this.worker.postMessage(request, request.kind === 'exchange' ? [request.bytes.buffer] : []);
    });
  }

  /**
   * Counted in steps, because a process that was stopped or busy for longer than the whole time finds one timer
   * expired when it goes on, before it gets to read the answer that has long been there.
   */
  #watch(pending: Pending, withinMs: number): void {
    pending.watch = setInterval(() => {
      pending.steps += 1;
      if (pending.steps < WATCH_STEPS) return;
      this.#lose(new EngineLostError(`the embedded database did not answer within ${withinMs} ms and was ended`));
    }, withinMs / WATCH_STEPS);
  }

  #hear(message: Answer): void {
    if (message.kind === 'crashed') {
      this.#lose(new EngineLostError(`the embedded database crashed (${message.message})`));
      return;
    }
    const pending = this.#pending;
    if (pending === undefined || message.kind === 'opened') return;
    if (message.kind === 'output') {
      pending.steps = 0;
      pending.onOutput(message.bytes);
      return;
    }
    this.#settle();
    if (message.kind === 'failed') pending.reject(new Error(message.message));
    else pending.resolve(message.bytes);
  }

  #settle(): void {
    clearInterval(this.#pending?.watch);
    this.#pending = undefined;
  }

  #lose(error: EngineLostError): void {
    if (this.#lost !== undefined) return;
    this.#lost = error;
    const pending = this.#pending;
    this.#settle();
    this.#ended = this.worker.terminate().then(ignore);
    pending?.reject(error);
    this.#whenLost(error);
  }
}

function ignore(): void {
  // Nothing to do.
}

/** Waits for the worker's first message, with the listeners taken off again whatever it is. */
function opened(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (message: string, code?: string): void => finish(() => reject(new EngineOpenError(message, code)));
    const timer = setTimeout(() => fail(`it did not open within ${OPEN_WITHIN_MS} ms`), OPEN_WITHIN_MS);
    const onMessage = (message: Answer): void => {
      if (message.kind === 'opened') finish(resolve);
      else if (message.kind === 'crashed') fail(message.message, message.code);
    };
    const onError = (error: Error): void => fail(error.message);
    const onExit = (): void => fail('its thread exited while opening');
    const finish = (settle: () => void): void => {
      clearTimeout(timer);
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
      settle();
    };
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
  });
}

function startWorker(settings: WorkerSettings): Worker {
  const extension = extname(fileURLToPath(import.meta.url));
  const url = new URL(`./engine_worker${extension}`, import.meta.url);
  const options: WorkerOptions = {
    workerData: settings,
    name: 'agentllm-engine',
    // Flags of the process (--import, --inspect) are not for this thread.
    execArgv: [],
    resourceLimits: { stackSizeMb: STACK_MB },
  };
  return extension === '.ts' ? startFromSource(url, options) : new Worker(url, options);
}

/**
 * From source (tests, benchmarks): `--import tsx` has no effect in worker threads on Node 20, whether inherited or
 * given in execArgv (tsx 4.23), so the thread registers it by itself.
 */
function startFromSource(url: URL, options: WorkerOptions): Worker {
  const tsx = import.meta.resolve('tsx/esm/api');
  const code = `import(${JSON.stringify(tsx)}).then((tsx) => { tsx.register(); return import(${JSON.stringify(url.href)}); })`;
  return new Worker(code, { ...options, eval: true });
}

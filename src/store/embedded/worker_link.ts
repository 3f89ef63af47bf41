import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker, type WorkerOptions } from 'node:worker_threads';
import type { Request, Response, WorkerSettings } from './worker_messages.js';

/**
 * Stack size of the worker. V8's default for a worker is 4 MB. PostgreSQL's limit of 2 MB of WebAssembly stack needs
 * far more of V8's stack, so deeply nested JSON or a recursive function corrupted the engine (PGlite swallows the
 * RangeError). With a large stack PostgreSQL reaches its limit first and returns error 54001. Measured: 64 MB is too
 * little, 256 MB is enough. The memory is reserved, not used.
 */
const STACK_MB = 256;
/** The first open runs initdb, which was measured at 2.4 to 3.5 s and takes several times that on a small machine. */
const OPEN_TIMEOUT_MS = 60_000;
/** The number of timer steps in the time limit of one response; see `#startTimer`. */
const TIMER_STEPS = 10;

/** The engine ended while a client was connected. Maps to UNAVAILABLE, as the crash of a PostgreSQL server does. */
export class EngineLostError extends Error {
  override readonly name = 'EngineLostError';
  readonly code = 'ECONNRESET';
  constructor(reason: string, options?: ErrorOptions) {
    super(`Connection terminated unexpectedly: ${reason}`, options);
  }
}

/** The engine could not open its database. `code` is the error code of the operating system, if there is one. */
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
  timer: NodeJS.Timeout | undefined;
  steps: number;
}

/** One worker with an open database. Requests are executed in order, one at a time. */
export class WorkerLink {
  #pending: Pending | undefined;
  #lastRequest: Promise<unknown> = Promise.resolve();
  #lost: EngineLostError | undefined;
  #ended: Promise<void> | undefined;
  readonly #whenLost: (error: EngineLostError) => void;
  /** Resolves with the reason when the engine has ended: crashed, hanging or closed. */
  readonly lost: Promise<EngineLostError>;

  private constructor(
    private readonly worker: Worker,
    private readonly unresponsiveAfterMs: number,
  ) {
    let whenLost: ((error: EngineLostError) => void) | undefined;
    this.lost = new Promise((resolve) => {
      whenLost = resolve;
    });
    this.#whenLost = (error) => whenLost?.(error);
    worker.on('message', (message: Response) => this.#onMessage(message));
    worker.on('error', (error) => this.#lose(new EngineLostError(`the embedded database crashed (${error.message})`)));
    worker.on('exit', () => this.#lose(new EngineLostError('the embedded database exited')));
  }

  static async open(settings: WorkerSettings, unresponsiveAfterMs: number): Promise<WorkerLink> {
    const worker = startWorker(settings);
    try {
      await waitUntilOpen(worker);
    } catch (error) {
      await worker.terminate();
      throw error;
    }
    return new WorkerLink(worker, unresponsiveAfterMs);
  }

  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Sends a request after the earlier ones have finished. Rejects with EngineLostError when the engine ends first. */
  request(
    request: Request,
    onOutput: Output = ignore,
    withinMs = this.unresponsiveAfterMs,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const response = this.#lastRequest.then(() => this.#send(request, onOutput, withinMs));
    this.#lastRequest = response.catch(ignore);
    return response;
  }

  /** Terminates the worker. Resolves when its thread has ended, so that another one can open the directory. */
  async end(reason: string): Promise<void> {
    this.#lose(new EngineLostError(reason));
    await this.#ended;
  }

  #send(request: Request, onOutput: Output, withinMs: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    return new Promise((resolve, reject) => {
      this.#pending = { onOutput, resolve, reject, timer: undefined, steps: 0 };
      this.#startTimer(this.#pending, withinMs);
      this.worker.postMessage(request, request.kind === 'exchange' ? [request.bytes.buffer] : []);
    });
  }

  /**
   * Starts the timer of a request. It counts steps instead of using one timer: after the process was stopped or busy
   * for longer than the limit, one timer would expire before the response that has already arrived is read.
   */
  #startTimer(pending: Pending, withinMs: number): void {
    pending.timer = setInterval(() => {
      pending.steps += 1;
      if (pending.steps < TIMER_STEPS) return;
      this.#lose(new EngineLostError(`the embedded database did not respond within ${withinMs} ms and was terminated`));
    }, withinMs / TIMER_STEPS);
  }

  #onMessage(message: Response): void {
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
    clearInterval(this.#pending?.timer);
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

/** Waits for the worker's first message and then removes the listeners. */
function waitUntilOpen(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (message: string, code?: string): void => finish(() => reject(new EngineOpenError(message, code)));
    const timer = setTimeout(() => fail(`it did not open within ${OPEN_TIMEOUT_MS} ms`), OPEN_TIMEOUT_MS);
    const onMessage = (message: Response): void => {
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
    // The thread must not inherit the flags of the process (--import, --inspect).
    execArgv: [],
    resourceLimits: { stackSizeMb: STACK_MB },
  };
  return extension === '.ts' ? startFromSource(url, options) : new Worker(url, options);
}

/**
 * Starts the worker from source (tests, benchmarks). `--import tsx` has no effect in worker threads on Node 20, whether
 * inherited or in execArgv (tsx 4.23), so the thread registers tsx itself.
 */
function startFromSource(url: URL, options: WorkerOptions): Worker {
  const tsx = import.meta.resolve('tsx/esm/api');
  const code = `import(${JSON.stringify(tsx)}).then((tsx) => { tsx.register(); return import(${JSON.stringify(url.href)}); })`;
  return new Worker(code, { ...options, eval: true });
}

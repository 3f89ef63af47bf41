import { ClientStream } from './client_stream.js';
import { explainDirectoryFailure, prepareDataDirectory } from './data_directory.js';
import { EngineLostError, EngineOpenError, WorkerLink } from './worker_link.js';
import type { WorkerSettings } from './worker_messages.js';

export { ClientStream, EngineLostError, EngineOpenError };

const WEDGED_AFTER_MS = 5_000;
const CONNECT_WITHIN_MS = 30_000;
/** The shutdown checkpoint writes what is in memory to disk. */
const CLOSE_WITHIN_MS = 30_000;
const DUMP_WITHIN_MS = 60_000;

export interface EngineLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

export interface EngineOptions {
  /** DATA_DIR; the database is in its `pg`. Hold its lock (directory_lock.ts) first. Undefined: in memory. */
  dataDir: string | undefined;
  /** What `dump` returned once: start a new database from it, instead of from initdb. */
  loadDump?: Blob | Uint8Array;
  /** A request that has no answer after this long ends the engine, and so is the longest time a statement may take. */
  wedgedAfterMs?: number;
  /** A client that is not served after this long is refused. */
  connectWithinMs?: number;
  /** Survive a power failure, not only a crash of the process: one fsync for each commit. */
  fsync?: boolean;
  log?: EngineLog;
}

export interface Engine {
  /** A new connection, for the `stream` option of `pg`. One is served at a time; the next waits until it has closed. */
  connect(): ClientStream;
  /** The whole database as a tarball, for `loadDump`. */
  dump(): Promise<Uint8Array<ArrayBuffer>>;
  /** Waits for the statement in flight, ends the clients, and closes the database. */
  close(): Promise<void>;
}

/** Opens the embedded database, creating it on the first start. */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const engine = new EmbeddedEngine(options, await workerSettings(options));
  await engine.open();
  return engine;
}

async function workerSettings({ dataDir, loadDump, fsync = false }: EngineOptions): Promise<WorkerSettings> {
  return {
    directory: dataDir === undefined ? undefined : await prepareDataDirectory(dataDir),
    loadDump: loadDump instanceof Blob ? new Uint8Array(await loadDump.arrayBuffer()) : loadDump && asOwn(loadDump),
    fsync,
  };
}

/** A view into a larger buffer would be cloned into the worker with all of it. */
function asOwn(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length
    ? new Uint8Array(buffer)
    : new Uint8Array(bytes);
}

class EmbeddedEngine implements Engine {
  #link: WorkerLink | undefined;
  #opening: Promise<WorkerLink> | undefined;
  #closing: Promise<void> | undefined;
  /** Resolves when the client that came last has gone and left a clean session. */
  #turn: Promise<void> = Promise.resolve();
  readonly #clients = new Set<ClientStream>();
  readonly #wedgedAfterMs: number;
  readonly #connectWithinMs: number;

  constructor(
    private readonly options: EngineOptions,
    private readonly settings: WorkerSettings,
  ) {
    this.#wedgedAfterMs = options.wedgedAfterMs ?? WEDGED_AFTER_MS;
    this.#connectWithinMs = options.connectWithinMs ?? CONNECT_WITHIN_MS;
  }

  /** The open database; opens it if it is not. Opening again is tried anew by each client that needs it. */
  open(): Promise<WorkerLink> {
    if (this.#link !== undefined && !this.#link.isLost) return Promise.resolve(this.#link);
    this.#opening ??= this.#openLink().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  connect(): ClientStream {
    const stream = new ClientStream((client) => void this.#serve(client));
    this.#clients.add(stream);
    void stream.gone.then(() => this.#clients.delete(stream));
    return stream;
  }

  async dump(): Promise<Uint8Array<ArrayBuffer>> {
    const link = await this.open();
    const tarball = await link.request({ kind: 'dump' }, undefined, DUMP_WITHIN_MS);
    if (tarball === undefined) throw new Error('the engine answered a dump with nothing');
    return tarball;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #openLink(): Promise<WorkerLink> {
    const previous = this.#link;
    if (this.#closing !== undefined) throw new EngineLostError('the embedded database is closed');
    if (previous !== undefined && this.options.dataDir === undefined) {
      throw new EngineLostError('the embedded database was lost, and it was in memory only');
    }
    // Two engines on one directory would destroy it: the old thread must be gone.
    await previous?.end('it is opened again');
    const startedAt = performance.now();
    const link = await this.#openOrExplain();
    this.#link = link;
    void link.lost.then((error) => this.#recover(error));
    const tookMs = Math.round(performance.now() - startedAt);
    this.options.log?.info({ dataDir: this.options.dataDir, tookMs }, 'embedded database open');
    return link;
  }

  async #openOrExplain(): Promise<WorkerLink> {
    // A dump is for the first start only: a database that is opened again is there already.
    const settings = this.#link === undefined ? this.settings : { ...this.settings, loadDump: undefined };
    try {
      return await WorkerLink.open(settings, this.#wedgedAfterMs);
    } catch (error) {
      throw this.options.dataDir === undefined ? error : explainOpening(this.options.dataDir, error);
    }
  }

  /** Opens the database again at once, so that the next client need not wait for it. */
  #recover(error: EngineLostError): void {
    if (this.#closing !== undefined) return;
    this.options.log?.warn({ err: error, dataDir: this.options.dataDir }, 'embedded database lost; opening it again');
    this.open().catch((reason: unknown) => {
      this.options.log?.warn({ err: reason }, 'embedded database could not be opened again');
    });
  }

  async #serve(client: ClientStream): Promise<void> {
    const timer = setTimeout(() => client.destroy(this.#notServed()), this.#connectWithinMs);
    void client.gone.then(() => clearTimeout(timer));
    const previous = this.#turn;
    let leave = (): void => undefined;
    this.#turn = new Promise((resolve) => {
      leave = resolve;
    });
    try {
      await Promise.race([previous, client.gone]);
      await this.#converse(client, timer);
    } catch (error) {
      // It opened when the process started, so to a client this is a database that is away.
      client.destroy(
        error instanceof EngineLostError ? error : new EngineLostError(messageOf(error), { cause: error }),
      );
    } finally {
      void previous.then(leave);
    }
  }

  async #converse(client: ClientStream, timer: NodeJS.Timeout): Promise<void> {
    if (client.destroyed) return;
    const link = await this.open();
    clearTimeout(timer);
    if (client.destroyed) return;
    client.attach(link);
    const lost = await Promise.race([client.gone, link.lost]);
    if (lost !== undefined) client.destroy(lost);
    // A reset that fails has lost the engine, which recovers by itself.
    else await link.request({ kind: 'reset' }).catch(() => undefined);
  }

  #notServed(): EngineLostError {
    return new EngineLostError(
      `the embedded database did not serve this client within ${this.#connectWithinMs} ms ` +
        '(it serves one at a time, and none while it opens)',
    );
  }

  async #close(): Promise<void> {
    const link = await (this.#opening ?? Promise.resolve(this.#link)).catch(() => undefined);
    // Behind the statement in flight: PGlite hangs when it is closed during one.
    await link?.request({ kind: 'close' }, undefined, CLOSE_WITHIN_MS).catch((error: unknown) => {
      this.options.log?.warn({ err: error }, 'embedded database was ended without a clean close');
    });
    const reason = 'the embedded database is closed';
    for (const client of this.#clients) client.destroy(new EngineLostError(reason));
    await link?.end(reason);
  }
}

function explainOpening(dataDir: string, error: unknown): Error {
  if (!(error instanceof EngineOpenError)) return new EngineOpenError(messageOf(error));
  const code = error.code ?? SAID_BY_POSTGRES.find(([words]) => error.message.includes(words))?.[1];
  if (code !== undefined) return explainDirectoryFailure(dataDir, new EngineOpenError(error.message, code));
  return new EngineOpenError(`The embedded database in ${dataDir} cannot be opened: ${error.message}.`);
}

/** PostgreSQL reports the operating system's errors in words. */
const SAID_BY_POSTGRES: [string, string][] = [
  ['No space left on device', 'ENOSPC'],
  ['Read-only file system', 'EROFS'],
  ['Permission denied', 'EACCES'],
];

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

import { errorMessage } from '../../error_properties.js';
import { ClientStream } from './client_stream.js';
import { explainDirectoryFailure, prepareDataDirectory } from './data_directory.js';
import { EngineLostError, EngineOpenError, WorkerLink } from './worker_link.js';
import type { WorkerSettings } from './worker_messages.js';

export { ClientStream, EngineLostError, EngineOpenError };

const REQUEST_TIMEOUT_MS = 5_000;
const CONNECT_TIMEOUT_MS = 30_000;
/** Time limit of the shutdown, whose checkpoint writes all changes in memory to disk. */
const CLOSE_TIMEOUT_MS = 30_000;
const DUMP_TIMEOUT_MS = 60_000;
/** Time limit of the vacuum of one table, which takes longer than a statement of the service may take. */
const VACUUM_TIMEOUT_MS = 60_000;

export interface EngineLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

export interface EngineOptions {
  /** DATA_DIR, whose lock (directory_lock.ts) the caller holds. The database is in its `pg`. undefined: in memory. */
  dataDir: string | undefined;
  /** A tarball from `dump`, from which a new database is created instead of with initdb. */
  loadDump?: Uint8Array;
  /** If a statement has no response after this time, in ms, the engine is terminated. So no statement can take longer. */
  unresponsiveAfterMs?: number;
  /** A client that is not served within this time, in ms, is rejected. */
  connectWithinMs?: number;
  log?: EngineLog;
}

export interface Engine {
  /**
   * A new connection, for the `stream` option of `pg`. The engine serves one connection at a time; the next one waits
   * until that one is closed.
   */
  connect(): ClientStream;
  /** The whole database as a tarball, for `loadDump`. */
  dump(): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Vacuums and analyzes a table, in the session of the connected client, which must have no open transaction.
   * @param table its name, quoted where necessary.
   */
  vacuum(table: string): Promise<void>;
  /** Waits for the running statement, disconnects the clients, and closes the database. */
  close(): Promise<void>;
}

/** Opens the embedded database, creating it on the first start. */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const engine = new EmbeddedEngine(options, await workerSettings(options));
  await engine.open();
  return engine;
}

async function workerSettings({ dataDir, loadDump }: EngineOptions): Promise<WorkerSettings> {
  return {
    directory: dataDir === undefined ? undefined : await prepareDataDirectory(dataDir),
    loadDump: loadDump && withoutExcess(loadDump),
  };
}

/** Copies a view, because the whole underlying buffer would be cloned into the worker. */
function withoutExcess(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length
    ? new Uint8Array(buffer)
    : new Uint8Array(bytes);
}

class EmbeddedEngine implements Engine {
  #link: WorkerLink | undefined;
  #opening: Promise<WorkerLink> | undefined;
  #closing: Promise<void> | undefined;
  /** Resolves when the last client in the queue has disconnected and the session is reset. */
  #lastClient: Promise<void> = Promise.resolve();
  readonly #clients = new Set<ClientStream>();
  readonly #unresponsiveAfterMs: number;
  readonly #connectWithinMs: number;

  constructor(
    private readonly options: EngineOptions,
    private readonly settings: WorkerSettings,
  ) {
    this.#unresponsiveAfterMs = options.unresponsiveAfterMs ?? REQUEST_TIMEOUT_MS;
    this.#connectWithinMs = options.connectWithinMs ?? CONNECT_TIMEOUT_MS;
  }

  /** The open database. Opens it if necessary; after a failure, each client that needs the database opens it again. */
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
    void stream.disconnected.then(() => this.#clients.delete(stream));
    return stream;
  }

  async dump(): Promise<Uint8Array<ArrayBuffer>> {
    const link = await this.open();
    const tarball = await link.request({ kind: 'dump' }, undefined, DUMP_TIMEOUT_MS);
    if (tarball === undefined) throw new Error('the engine returned no dump');
    return tarball;
  }

  async vacuum(table: string): Promise<void> {
    const link = await this.open();
    await link.request({ kind: 'vacuum', table }, undefined, VACUUM_TIMEOUT_MS);
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
    // Two engines would corrupt the directory, so the old thread must have ended.
    await previous?.end('the embedded database is opened again');
    const startedAt = performance.now();
    const link = await this.#openOrExplain();
    this.#link = link;
    void link.lost.then((error) => this.#recover(error));
    const tookMs = Math.round(performance.now() - startedAt);
    this.options.log?.info({ dataDir: this.options.dataDir, tookMs }, 'embedded database open');
    return link;
  }

  async #openOrExplain(): Promise<WorkerLink> {
    // A dump is loaded at the first start only. A database that is opened again exists already.
    const settings = this.#link === undefined ? this.settings : { ...this.settings, loadDump: undefined };
    try {
      return await WorkerLink.open(settings, this.#unresponsiveAfterMs);
    } catch (error) {
      throw this.options.dataDir === undefined ? error : explainOpening(this.options.dataDir, error);
    }
  }

  /** Opens the database again immediately, so that the next client does not wait for it. */
  #recover(error: EngineLostError): void {
    if (this.#closing !== undefined) return;
    this.options.log?.warn({ err: error, dataDir: this.options.dataDir }, 'embedded database lost; opening it again');
    this.open().catch((reason: unknown) => {
      this.options.log?.warn({ err: reason }, 'embedded database could not be opened again');
    });
  }

  async #serve(client: ClientStream): Promise<void> {
    const timer = setTimeout(() => client.destroy(this.#timeoutError()), this.#connectWithinMs);
    void client.disconnected.then(() => clearTimeout(timer));
    const previous = this.#lastClient;
    let release = (): void => undefined;
    this.#lastClient = new Promise((resolve) => {
      release = resolve;
    });
    try {
      await Promise.race([previous, client.disconnected]);
      await this.#serveSession(client, timer);
    } catch (error) {
      // The database was open earlier, so the client receives an error that maps to UNAVAILABLE.
      client.destroy(
        error instanceof EngineLostError ? error : new EngineLostError(errorMessage(error), { cause: error }),
      );
    } finally {
      void previous.then(release);
    }
  }

  async #serveSession(client: ClientStream, timer: NodeJS.Timeout): Promise<void> {
    if (client.destroyed) return;
    const link = await this.open();
    clearTimeout(timer);
    if (client.destroyed) return;
    client.attach(link);
    const lost = await Promise.race([client.disconnected, link.lost]);
    if (lost !== undefined) client.destroy(lost);
    // If the reset fails, the engine is lost and is opened again by `#recover`.
    else await link.request({ kind: 'reset' }).catch(() => undefined);
  }

  #timeoutError(): EngineLostError {
    return new EngineLostError(
      `the embedded database did not serve this client within ${this.#connectWithinMs} ms ` +
        '(it serves one at a time, and none while it opens)',
    );
  }

  async #close(): Promise<void> {
    const link = await (this.#opening ?? Promise.resolve(this.#link)).catch(() => undefined);
    // This request waits for the running statement, because PGlite hangs when it is closed during a statement.
    await link?.request({ kind: 'close' }, undefined, CLOSE_TIMEOUT_MS).catch((error: unknown) => {
      this.options.log?.warn({ err: error }, 'embedded database was terminated without a clean close');
    });
    const reason = 'the embedded database is closed';
    for (const client of this.#clients) client.destroy(new EngineLostError(reason));
    await link?.end(reason);
  }
}

function explainOpening(dataDir: string, error: unknown): Error {
  if (!(error instanceof EngineOpenError)) return new EngineOpenError(errorMessage(error));
  const code = error.code ?? POSTGRES_MESSAGES.find(([text]) => error.message.includes(text))?.[1];
  if (code !== undefined) return explainDirectoryFailure(dataDir, new EngineOpenError(error.message, code));
  return new EngineOpenError(`The embedded database in ${dataDir} cannot be opened: ${error.message}.`);
}

/** PostgreSQL reports errors of the operating system as text. */
const POSTGRES_MESSAGES: [string, string][] = [
  ['No space left on device', 'ENOSPC'],
  ['Read-only file system', 'EROFS'],
  ['Permission denied', 'EACCES'],
];

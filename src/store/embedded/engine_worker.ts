/**
 * The worker thread in which PGlite runs, so that a long query does not block the event loop of the service and a
 * hanging one can be terminated. It receives one request at a time (see worker_link.ts).
 */
import { existsSync, renameSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite, type PGliteOptions } from '@electric-sql/pglite';
import type { Request, Response, WorkerSettings } from './worker_messages.js';

/** Output is sent to the main thread in chunks of about this size; PostgreSQL produces it in 8 kB pieces. */
const OUTPUT_CHUNK_BYTES = 256 * 1024;
/** With a checkpoint after this amount of write-ahead log, a restart after a crash takes less than a second. */
const CHECKPOINT_EVERY_WAL_BYTES = 64 * 1024 * 1024;
const WAL_CHECK_INTERVAL_MS = 5_000;
/** The exit status with which PGlite's build reports a jump to the main loop after an SQL error. It is harmless. */
const POSTGRES_MAIN_LONGJMP = 100;
const ERROR_RESPONSE = 0x45;
/** ReadyForQuery with status idle: no transaction is open. */
const IDLE = [0x5a, 0, 0, 0, 5, 0x49];

if (parentPort === null) throw new Error('engine_worker runs as a worker thread');
const port = parentPort;
const settings = workerData as WorkerSettings;
/** The last lines of PostgreSQL on stderr, which contain the reason when it cannot start. */
const stderrTail: string[] = [];
let lastWalCheck = performance.now();

let database: PGlite;
try {
  database = await open();
  port.on('message', (request: Request) => {
    void handle(request);
  });
  post({ kind: 'opened' });
} catch (error) {
  crash(error);
}

async function open(): Promise<PGlite> {
  const { directory } = settings;
  if (directory === undefined) return start({ loadDataDir: dumpToLoad() });
  if (!existsSync(directory.cluster)) {
    await createCluster(directory);
  } else if (settings.loadDump !== undefined) {
    throw new Error('it already contains a database, so a dump cannot be loaded');
  }
  return start({ dataDir: directory.cluster });
}

/** Creates the cluster atomically: if the first start is killed before the rename, the next one starts over. */
async function createCluster({ cluster, unfinished }: { cluster: string; unfinished: string }): Promise<void> {
  const created = await start({ dataDir: unfinished, loadDataDir: dumpToLoad() });
  await created.close();
  renameSync(unfinished, cluster);
}

async function start(options: PGliteOptions): Promise<PGlite> {
  const started = await PGlite.create({ ...options, onStderr: keepLine });
  exitWhenBroken(started);
  return started;
}

function keepLine(line: string): boolean {
  stderrTail.push(line);
  if (stderrTail.length > 20) stderrTail.shift();
  return true;
}

function dumpToLoad(): Blob | undefined {
  return settings.loadDump && new Blob([settings.loadDump]);
}

/**
 * PGlite 0.5.16 swallows every exception of the backend. That is correct only for SQL errors. After any other exception
 * (stack overflow in deeply nested input, exit of the backend) the client has received no response or a part of one,
 * the transaction of the statement is still open and would be committed by the next one, and some inputs loop
 * endlessly. So the first such exception ends the thread, as a crash ends a PostgreSQL backend. The write-ahead log on
 * disk is complete.
 */
function exitWhenBroken(started: PGlite): void {
  const module = started.Module as unknown as { _PostgresMainLoopOnce: () => void };
  const runOnce = module._PostgresMainLoopOnce;
  module._PostgresMainLoopOnce = () => {
    try {
      runOnce();
    } catch (error) {
      if (exitStatus(error) !== POSTGRES_MAIN_LONGJMP) crash(error);
      throw error;
    }
  };
}

function crash(error: unknown): never {
  const { message, code } = explain(error);
  const details = stderrTail.filter((line) => /\b(FATAL|PANIC|HINT|DETAIL):/.test(line));
  post({ kind: 'crashed', message: [message, ...details].join('; '), code });
  // In a worker this ends the thread and not the process, also when called from WebAssembly.
  process.exit(1);
}

/** Emscripten reports errors with the numbers of WASI and without a code. */
const WASI_CODES: Record<number, string> = {
  2: 'EACCES',
  19: 'EDQUOT',
  29: 'EIO',
  51: 'ENOSPC',
  63: 'EPERM',
  69: 'EROFS',
};

function explain(error: unknown): { message: string; code?: string } {
  if (typeof error !== 'object' || error === null) return { message: String(error) };
  const { message, code, errno } = error as { message?: unknown; code?: unknown; errno?: unknown };
  const wasiCode = typeof errno === 'number' ? WASI_CODES[errno] : undefined;
  return { message: String(message ?? error), code: typeof code === 'string' ? code : wasiCode };
}

function exitStatus(error: unknown): unknown {
  return typeof error === 'object' && error !== null && 'status' in error ? error.status : undefined;
}

function post(message: Response): void {
  const bytes = 'bytes' in message ? message.bytes : undefined;
  port.postMessage(message, bytes === undefined ? [] : [bytes.buffer]);
}

async function handle(request: Request): Promise<void> {
  try {
    if (request.kind === 'exchange') await exchange(request.bytes);
    else if (request.kind === 'reset') await reset();
    else if (request.kind === 'dump') await respond(dump);
    else if (request.kind === 'vacuum') await respond(() => vacuum(request.table));
    else await close();
  } catch (error) {
    crash(error);
  }
}

async function exchange(bytes: Uint8Array): Promise<void> {
  const output = new OutputChunks((chunk) => post({ kind: 'output', bytes: chunk }));
  await database.execProtocolRawStream(bytes, { onRawData: (data) => output.add(data) });
  const last = output.take();
  const idle = endsIdle(last);
  post({ kind: 'done', bytes: last });
  if (idle) await checkpointWhenDue();
}

function endsIdle(output: Uint8Array): boolean {
  const tail = output.subarray(-IDLE.length);
  return IDLE.every((byte, index) => tail[index] === byte);
}

/** Copies output from the engine's memory and sends it in chunks. */
class OutputChunks {
  #buffer = new Uint8Array(8 * 1024);
  #length = 0;

  constructor(private readonly onChunk: (chunk: Uint8Array<ArrayBuffer>) => void) {}

  add(data: Uint8Array): void {
    if (this.#length > 0 && this.#length + data.length > OUTPUT_CHUNK_BYTES) this.onChunk(this.take());
    this.#reserve(data.length);
    this.#buffer.set(data, this.#length);
    this.#length += data.length;
  }

  take(): Uint8Array<ArrayBuffer> {
    const chunk = this.#buffer.slice(0, this.#length);
    this.#length = 0;
    return chunk;
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, Math.min(OUTPUT_CHUNK_BYTES, this.#buffer.length * 4)));
    larger.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = larger;
  }
}

/** Resets the session, because PGlite has one session for all clients. */
async function reset(): Promise<void> {
  await resetSession();
  post({ kind: 'done' });
}

async function resetSession(): Promise<void> {
  // Sync is sent first, because after an error the backend ignores all other messages until it receives Sync.
  await runOutsideSession(Buffer.from([0x53, 0, 0, 0, 4]));
  await runOutsideSession(simpleQuery('ROLLBACK'));
  const output = await runOutsideSession(simpleQuery('DISCARD ALL'));
  if (output[0] === ERROR_RESPONSE || !endsIdle(output)) throw new Error('the session could not be reset');
}

async function runOutsideSession(bytes: Uint8Array): Promise<Uint8Array> {
  const output = new OutputChunks(() => undefined);
  await database.execProtocolRawStream(bytes, { onRawData: (data) => output.add(data) });
  return output.take();
}

function simpleQuery(text: string): Uint8Array {
  const body = Buffer.from(`${text}\0`);
  const header = Buffer.alloc(5);
  header.writeUInt8(0x51);
  header.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

/**
 * Runs a checkpoint when enough write-ahead log has accumulated. PGlite is a single-user backend without a background
 * checkpointer, so the log would grow without bound (measured: 500 MB and growing). The time to open the database after
 * a kill would grow too. Called only while no transaction is open.
 */
async function checkpointWhenDue(): Promise<void> {
  const now = performance.now();
  if (settings.directory === undefined || now - lastWalCheck < WAL_CHECK_INTERVAL_MS) return;
  lastWalCheck = now;
  try {
    const { rows } = await database.query<{ due: boolean }>(
      `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn) > ${CHECKPOINT_EVERY_WAL_BYTES} AS due FROM pg_control_checkpoint()`,
    );
    if (rows[0]?.due) await database.exec('CHECKPOINT');
  } catch {
    // The disk is probably full. The next write reports that to its client, and the next check repeats the checkpoint.
  }
}

/** Runs a request that may fail without an effect on the engine. */
async function respond(run: () => Promise<Uint8Array<ArrayBuffer> | undefined>): Promise<void> {
  try {
    const bytes = await run();
    post({ kind: 'done', ...(bytes && { bytes }) });
  } catch (error) {
    post({ kind: 'failed', message: explain(error).message });
  }
}

async function dump(): Promise<Uint8Array<ArrayBuffer>> {
  // A dump after a checkpoint opens without recovery. In a failed transaction no statement can run.
  if (!database.isInTransaction()) await database.exec('CHECKPOINT');
  const tarball = await database.dumpDataDir('none');
  return new Uint8Array(await tarball.arrayBuffer());
}

async function vacuum(table: string): Promise<undefined> {
  await database.exec(`VACUUM (ANALYZE) ${table}`);
}

async function close(): Promise<void> {
  await resetSession();
  await database.close();
  post({ kind: 'done' });
}

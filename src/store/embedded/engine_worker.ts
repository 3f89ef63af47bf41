/**
 * The worker thread in which PGlite runs: here a long query blocks nobody's event loop, and a wedged one can be ended.
 * It gets one request at a time (see worker_link.ts) and runs each to its end.
 */
import { existsSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite, type PGliteOptions } from '@electric-sql/pglite';
import { DURABLE_START_PARAMS, DurableNodeFS, fsyncDirectory } from './durable_files.js';
import type { Answer, Request, WorkerSettings } from './worker_messages.js';

/** Output goes to the main thread in pieces of about this size; PostgreSQL hands it over 8 kB at a time. */
const PIECE = 256 * 1024;
/** A checkpoint after this much write-ahead log keeps the restart after a crash under a second. */
const CHECKPOINT_EVERY_WAL_BYTES = 64 * 1024 * 1024;
const LOOK_AT_WAL_EVERY_MS = 5_000;
/** How PGlite's build says "an SQL error jumps back to the main loop": the one exception that is harmless. */
const POSTGRES_MAIN_LONGJMP = 100;
const ERROR_RESPONSE = 0x45;
/** ReadyForQuery, idle: no transaction is open, and the backend waits for a new query. */
const IDLE = [0x5a, 0, 0, 0, 5, 0x49];

if (parentPort === null) throw new Error('engine_worker runs as a worker thread');
const port = parentPort;
const settings = workerData as WorkerSettings;
/** What PostgreSQL said last on stderr: the reason when it cannot start. */
const lastWords: string[] = [];
let lastLookAtWal = performance.now();

let database: PGlite;
try {
  database = await open();
  port.on('message', (request: Request) => {
    void answer(request);
  });
  say({ kind: 'opened' });
} catch (error) {
  giveUp(error);
}

async function open(): Promise<PGlite> {
  const { directory } = settings;
  if (directory === undefined) return start({ loadDataDir: dumpToLoad() });
  if (!existsSync(directory.cluster)) {
    await createCluster(directory);
  } else if (settings.loadDump !== undefined) {
    throw new Error('it already holds a database, so that no dump can be loaded into it');
  }
  return start(storedAt(directory.cluster));
}

/** A first start may be killed at any point: only the rename makes it count. */
async function createCluster({ cluster, unfinished }: { cluster: string; unfinished: string }): Promise<void> {
  const created = await start({ ...storedAt(unfinished), loadDataDir: dumpToLoad() });
  await created.close();
  renameSync(unfinished, cluster);
  if (settings.fsync) fsyncDirectory(dirname(cluster));
}

function storedAt(directory: string): PGliteOptions {
  if (!settings.fsync) return { dataDir: directory };
  return { dataDir: directory, fs: new DurableNodeFS(directory), startParams: DURABLE_START_PARAMS };
}

async function start(options: PGliteOptions): Promise<PGlite> {
  const started = await PGlite.create({ ...options, onStderr: remember });
  exitWhenBroken(started);
  return started;
}

function remember(line: string): boolean {
  lastWords.push(line);
  if (lastWords.length > 20) lastWords.shift();
  return true;
}

function dumpToLoad(): Blob | undefined {
  return settings.loadDump && new Blob([settings.loadDump]);
}

/**
 * PGlite 0.5.16 swallows every exception out of the backend. Only the SQL error is meant to be: after any other (the
 * stack ran out in deeply nested input, the backend exited) the client got no answer or half of one, the statement's
 * transaction is still open and would be committed by the next, and some inputs spin for ever. So the first one ends
 * the thread, as a crash ends a PostgreSQL backend; the log on disk is complete.
 */
function exitWhenBroken(started: PGlite): void {
  const module = started.Module as unknown as { _PostgresMainLoopOnce: () => void };
  const runOnce = module._PostgresMainLoopOnce;
  module._PostgresMainLoopOnce = () => {
    try {
      runOnce();
    } catch (error) {
      if (exitStatus(error) !== POSTGRES_MAIN_LONGJMP) giveUp(error);
      throw error;
    }
  };
}

function giveUp(error: unknown): never {
  const { message, code } = explain(error);
  const words = lastWords.filter((line) => /\b(FATAL|PANIC|HINT|DETAIL):/.test(line));
  say({ kind: 'crashed', message: [message, ...words].join('; '), code });
  // In a worker this ends the thread, also from within WebAssembly, and not the process.
  process.exit(1);
}

/** Emscripten numbers errors as WASI does and gives them no code. */
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

function say(message: Answer): void {
  const bytes = 'bytes' in message ? message.bytes : undefined;
  port.postMessage(message, bytes === undefined ? [] : [bytes.buffer]);
}

async function answer(request: Request): Promise<void> {
  try {
    if (request.kind === 'exchange') await exchange(request.bytes);
    else if (request.kind === 'reset') await reset();
    else if (request.kind === 'dump') await dump();
    else await close();
  } catch (error) {
    giveUp(error);
  }
}

async function exchange(bytes: Uint8Array): Promise<void> {
  const output = new OutputPieces((piece) => say({ kind: 'output', bytes: piece }));
  await database.execProtocolRawStream(bytes, { onRawData: (data) => output.add(data) });
  const last = output.rest();
  const idle = endsIdle(last);
  say({ kind: 'done', bytes: last });
  if (idle) await checkpointWhenDue();
}

function endsIdle(output: Uint8Array): boolean {
  const tail = output.subarray(-IDLE.length);
  return IDLE.every((byte, index) => tail[index] === byte);
}

/** Collects output, which lies in the engine's memory and must be copied, into pieces that are handed over. */
class OutputPieces {
  #piece = new Uint8Array(8 * 1024);
  #length = 0;

  constructor(private readonly handOver: (piece: Uint8Array<ArrayBuffer>) => void) {}

  add(data: Uint8Array): void {
    if (this.#length > 0 && this.#length + data.length > PIECE) this.handOver(this.rest());
    this.#makeRoom(data.length);
    this.#piece.set(data, this.#length);
    this.#length += data.length;
  }

  rest(): Uint8Array<ArrayBuffer> {
    const piece = this.#piece.slice(0, this.#length);
    this.#length = 0;
    return piece;
  }

  #makeRoom(wanted: number): void {
    const needed = this.#length + wanted;
    if (needed <= this.#piece.length) return;
    const larger = new Uint8Array(Math.max(needed, Math.min(PIECE, this.#piece.length * 4)));
    larger.set(this.#piece.subarray(0, this.#length));
    this.#piece = larger;
  }
}

/** PGlite has one session for all: what one client leaves behind, the next would find. */
async function reset(): Promise<void> {
  await resetSession();
  say({ kind: 'done' });
}

async function resetSession(): Promise<void> {
  // Sync first: after an error the backend skips everything else until it sees one.
  await runOutsideSession(Buffer.from([0x53, 0, 0, 0, 4]));
  await runOutsideSession(simpleQuery('ROLLBACK'));
  const output = await runOutsideSession(simpleQuery('DISCARD ALL'));
  if (output[0] === ERROR_RESPONSE || !endsIdle(output)) throw new Error('the session could not be reset');
}

async function runOutsideSession(bytes: Uint8Array): Promise<Uint8Array> {
  const output = new OutputPieces(() => undefined);
  await database.execProtocolRawStream(bytes, { onRawData: (data) => output.add(data) });
  return output.rest();
}

function simpleQuery(text: string): Uint8Array {
  const body = Buffer.from(`${text}\0`);
  const header = Buffer.alloc(5);
  header.writeUInt8(0x51);
  header.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

/**
 * PGlite is a single-user backend: nobody takes checkpoints in the background, so the log grows for ever (measured:
 * 500 MB and counting), and with it the time to open after a kill. Called only while no transaction is open.
 */
async function checkpointWhenDue(): Promise<void> {
  const now = performance.now();
  if (settings.directory === undefined || now - lastLookAtWal < LOOK_AT_WAL_EVERY_MS) return;
  lastLookAtWal = now;
  try {
    const { rows } = await database.query<{ due: boolean }>(
      `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn) > ${CHECKPOINT_EVERY_WAL_BYTES} AS due FROM pg_control_checkpoint()`,
    );
    if (rows[0]?.due) await database.exec('CHECKPOINT');
  } catch {
    // A full disk, most likely. The next write tells the client; the next look tries again.
  }
}

async function dump(): Promise<void> {
  try {
    // A dump after a checkpoint opens without recovery; within a transaction that has failed, no statement runs.
    if (!database.isInTransaction()) await database.exec('CHECKPOINT');
    const tarball = await database.dumpDataDir('none');
    say({ kind: 'done', bytes: new Uint8Array(await tarball.arrayBuffer()) });
  } catch (error) {
    say({ kind: 'failed', message: explain(error).message });
  }
}

async function close(): Promise<void> {
  await resetSession();
  await database.close();
  say({ kind: 'done' });
}

import { readFileSync } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ConfigChanges } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { TEMPORARY_SUFFIX, writeFileAtomically } from '../atomic_file.js';
import { CacheCipher } from './cache_encryption.js';
import { View } from './view.js';
import type { Warn } from './warning.js';

/** The cache file of the last known good state, with which a process can start while the service is unavailable. */
export interface CacheOptions {
  /**
   * The path of the file. Missing directories are created. Processes may share a file; the last write wins.
   */
  readonly path: string;
  /**
   * The secret with which the file is encrypted and authenticated: any non-empty text or bytes, preferably 32 random
   * bytes.
   */
  readonly key: string | Uint8Array;
  /** The maximum age of the file at start, in ms, above 0. An older file is ignored. Default: 86 400 000 (24 hours). */
  readonly maxAgeMs?: number | undefined;
}

/** The content of a cache file. */
export interface CachedSnapshot {
  readonly view: View;
  readonly savedAt: Date;
}

/** The header of the file, in JSON; the state follows it. */
interface Header {
  readonly saved_at: number;
  readonly revision: string;
  readonly resume_token: string;
  readonly agents: readonly string[] | 'all';
}

const DAY_MS = 24 * 60 * 60 * 1000;
/** Minimum pause between two writes. */
const PAUSE_MS = 1_000;
/** The pause is at least this many times the duration of the encoding, which blocks the process. */
const PAUSE_FACTOR = 20;
/** A temporary file that is older than this belongs to a process that was killed. */
const ABANDONED_MS = 10 * 60 * 1000;

/** Applies the defaults; throws a TypeError for options that are not valid. */
export function checkCache({ path, key, maxAgeMs = DAY_MS }: CacheOptions): Required<CacheOptions> {
  if (typeof path !== 'string' || path === '') throw new TypeError('cache.path must be the name of a file');
  const isKey = (typeof key === 'string' || key instanceof Uint8Array) && key.length > 0;
  if (!isKey) throw new TypeError('cache.key is missing: the file is written only with a key to encrypt it');
  if (!(maxAgeMs > 0)) throw new TypeError(`cache.maxAgeMs must be a number above 0, not ${String(maxAgeMs)}`);
  return { path, key, maxAgeMs };
}

/** Reads and writes the cache file. Writes are atomic, and failures only cause warnings. */
export class SnapshotCache {
  private readonly cipher: CacheCipher;
  private readonly path: string;
  private readonly maxAgeMs: number;
  private unsaved: View | undefined;
  private writing: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  /** The earliest time of the next write, in ms of `performance.now()`. */
  private pauseUntil = 0;
  private savedAt = 0;
  private cleaned = false;
  /** Kinds of failure that were reported since the last success. */
  private readonly reported = new Set<string>();

  constructor(
    options: CacheOptions,
    private readonly agents: readonly string[] | 'all',
    private readonly warn: Warn,
  ) {
    const { path, key, maxAgeMs } = checkCache(options);
    this.path = path;
    this.maxAgeMs = maxAgeMs;
    this.cipher = new CacheCipher(key);
  }

  /** The content of the file; undefined if there is none or it is not valid. */
  load(): CachedSnapshot | undefined {
    try {
      const bytes = readFileSync(this.path);
      return this.read(this.cipher.open(bytes));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      const reason = cause instanceof Error ? cause.message : String(cause);
      this.warn('CACHE_IGNORED', `The file ${this.path} is not used: ${reason}`, cause);
      return undefined;
    }
  }

  /** Schedules a write. */
  save(view: View): void {
    this.unsaved = view;
    if (this.writing || this.timer) return;
    const pause = Math.max(0, this.pauseUntil - performance.now());
    this.timer = setTimeout(() => this.start(), pause).unref();
  }

  /** Schedules a write if the file is so old that it could soon be ignored at a start. */
  refresh(view: View): void {
    if (Date.now() - this.savedAt > Math.min(5 * 60 * 1000, this.maxAgeMs / 10)) this.save(view);
  }

  /** Resolves when the scheduled write has been executed or has failed. */
  async flush(): Promise<void> {
    await this.writing;
    if (this.unsaved) await this.start();
  }

  private read(content: Buffer): CachedSnapshot {
    const length = content.readUInt32LE(0);
    const header = JSON.parse(content.subarray(4, 4 + length).toString()) as Header;
    const savedAt = new Date(header.saved_at);
    const age = Date.now() - savedAt.getTime();
    // A time in the future means that the clock was set back; the real age is not known.
    if (!(Math.abs(age) <= this.maxAgeMs)) throw new Error(`it is too old: it was saved at ${savedAt.toISOString()}`);
    if (JSON.stringify(header.agents) !== JSON.stringify(this.agents)) throw new Error('it is for other agents');
    const { agents, catalogue } = ConfigChanges.decode(content.subarray(4 + length));
    this.savedAt = savedAt.getTime();
    const position = { revision: BigInt(header.revision), token: header.resume_token };
    const batch = { ...position, agents, catalogue, cause: undefined, snapshot: true };
    return { view: View.empty().apply(batch).view, savedAt };
  }

  private start(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    const view = this.unsaved;
    this.unsaved = undefined;
    if (!view) return Promise.resolve();
    this.writing = this.write(view)
      .then(() => this.reported.clear())
      .catch((cause: NodeJS.ErrnoException) => this.failed(cause))
      .finally(() => {
        this.writing = undefined;
        if (this.unsaved) this.save(this.unsaved);
      });
    return this.writing;
  }

  private failed(cause: NodeJS.ErrnoException): void {
    const kind = cause.code ?? cause.message;
    if (this.reported.has(kind)) return;
    this.reported.add(kind);
    this.warn('CACHE_NOT_WRITTEN', `The state cannot be written to ${this.path}: ${cause.message}`, cause);
  }

  private async write(view: View): Promise<void> {
    const began = performance.now();
    const now = Date.now();
    const content = this.encode(view, now);
    this.pauseUntil = performance.now() + Math.max(PAUSE_MS, PAUSE_FACTOR * (performance.now() - began));
    const bytes = await this.cipher.encrypt(content);
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    if (!this.cleaned) await this.removeAbandoned();
    await writeFileAtomically(this.path, bytes, { mode: 0o600 });
    this.savedAt = now;
  }

  private encode(view: View, savedAt: number): Buffer {
    const { revision, token: resume_token } = view;
    const header: Header = { saved_at: savedAt, revision: String(revision), resume_token, agents: this.agents };
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(text.length);
    return Buffer.concat([length, text, ConfigChanges.encode(view.toMessage()).finish()]);
  }

  /** Removes the temporary files of processes that were killed during a write. */
  private async removeAbandoned(): Promise<void> {
    this.cleaned = true;
    const directory = dirname(this.path);
    const base = basename(this.path);
    const isTemporary = (name: string) => name.startsWith(base) && TEMPORARY_SUFFIX.test(name.slice(base.length));
    for (const name of (await readdir(directory)).filter(isTemporary)) {
      const path = join(directory, name);
      // Another process may remove the same file at the same time.
      const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }));
      if (Date.now() - mtimeMs > ABANDONED_MS) await rm(path, { force: true });
    }
  }
}

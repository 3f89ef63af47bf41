import { readFileSync } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ConfigChanges } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { TEMPORARY_SUFFIX, writeFileAtomically } from '../atomic_file.js';
import { CacheCipher } from './cache_encryption.js';
import { View } from './view.js';
import type { Warn } from './warning.js';

/** Where the last known good is kept, so that a process can start while the service is away. */
export interface CacheOptions {
  /** The file; its directory is made when it is not there. Processes may share it: the last one to write wins. */
  readonly path: string;
  /**
   * A secret that the file is encrypted and authenticated with; without it none is written. Any text or bytes: 32 random
   * bytes are best.
   */
  readonly key: string | Uint8Array;
  /** How old the file may be at the start, in ms; an older one is not used. Default: 24 hours. */
  readonly maxAgeMs?: number | undefined;
}

/** What a file held. */
export interface CachedSnapshot {
  readonly view: View;
  readonly savedAt: Date;
}

/** In front of the state, in JSON. */
interface Head {
  readonly saved_at: number;
  readonly revision: string;
  readonly resume_token: string;
  readonly agents: readonly string[] | 'all';
}

const DAY_MS = 24 * 60 * 60 * 1000;
/** Between two writes: at least this, and so much that encoding takes at most a twentieth of the time. */
const PAUSE_MS = 1_000;
const SHARE = 20;
/** What a process that was killed has left behind is older than this. */
const ABANDONED_MS = 10 * 60 * 1000;

/** Refuses options that would write in clear, or nowhere. */
export function checkCache({ path, key, maxAgeMs = DAY_MS }: CacheOptions): Required<CacheOptions> {
  if (typeof path !== 'string' || path === '') throw new TypeError('cache.path must be the name of a file');
  const isKey = (typeof key === 'string' || key instanceof Uint8Array) && key.length > 0;
  if (!isKey) throw new TypeError('cache.key is missing: nothing is written without a key to encrypt it with');
  if (!(maxAgeMs > 0)) throw new TypeError(`cache.maxAgeMs must be a number above 0, not ${String(maxAgeMs)}`);
  return { path, key, maxAgeMs };
}

/** The file of the last known good: written whole or not at all, and never a reason to fail. */
export class SnapshotCache {
  private readonly seal: CacheCipher;
  private readonly path: string;
  private readonly maxAgeMs: number;
  private unsaved: View | undefined;
  private writing: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  /** Before when not to write again, in ms of `performance.now()`. */
  private pauseUntil = 0;
  private savedAt = 0;
  private tidied = false;
  /** Kinds of failure that were told of since the last success. */
  private readonly told = new Set<string>();

  constructor(
    options: CacheOptions,
    private readonly agents: readonly string[] | 'all',
    private readonly warn: Warn,
  ) {
    const { path, key, maxAgeMs } = checkCache(options);
    this.path = path;
    this.maxAgeMs = maxAgeMs;
    this.seal = new CacheCipher(key);
  }

  /** What the file holds, when it is good. */
  load(): CachedSnapshot | undefined {
    try {
      const bytes = readFileSync(this.path);
      return this.read(this.seal.open(bytes));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      const why = cause instanceof Error ? cause.message : String(cause);
      this.warn('CACHE_IGNORED', `The file ${this.path} is not used: ${why}`, cause);
      return undefined;
    }
  }

  /** Writes what is held, soon. */
  save(view: View): void {
    this.unsaved = view;
    if (this.writing || this.timer) return;
    const pause = Math.max(0, this.pauseUntil - performance.now());
    this.timer = setTimeout(() => this.start(), pause).unref();
  }

  /** Writes what is held when the file is so old that a start would soon not take it any more. */
  refresh(view: View): void {
    if (Date.now() - this.savedAt > Math.min(5 * 60 * 1000, this.maxAgeMs / 10)) this.save(view);
  }

  /** Resolves when what is held is in the file, or cannot be written. */
  async flush(): Promise<void> {
    await this.writing;
    if (this.unsaved) await this.start();
  }

  private read(content: Buffer): CachedSnapshot {
    const length = content.readUInt32LE(0);
    const head = JSON.parse(content.subarray(4, 4 + length).toString()) as Head;
    const savedAt = new Date(head.saved_at);
    const age = Date.now() - savedAt.getTime();
    // A clock that was put back makes the file as old as it seems to be young.
    if (!(Math.abs(age) <= this.maxAgeMs)) throw new Error(`it is of ${savedAt.toISOString()}, and too old`);
    if (JSON.stringify(head.agents) !== JSON.stringify(this.agents)) throw new Error('it is of other agents');
    const { agents, catalogue } = ConfigChanges.decode(content.subarray(4 + length));
    this.savedAt = savedAt.getTime();
    const place = { revision: BigInt(head.revision), token: head.resume_token };
    const batch = { ...place, agents, catalogue, cause: undefined, snapshot: true };
    return { view: View.empty().apply(batch).view, savedAt };
  }

  private start(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    const view = this.unsaved;
    this.unsaved = undefined;
    if (!view) return Promise.resolve();
    this.writing = this.write(view)
      .then(() => this.told.clear())
      .catch((cause: NodeJS.ErrnoException) => this.failed(cause))
      .finally(() => {
        this.writing = undefined;
        if (this.unsaved) this.save(this.unsaved);
      });
    return this.writing;
  }

  private failed(cause: NodeJS.ErrnoException): void {
    const kind = cause.code ?? cause.message;
    if (this.told.has(kind)) return;
    this.told.add(kind);
    this.warn('CACHE_NOT_WRITTEN', `What is held cannot be written to ${this.path}: ${cause.message}`, cause);
  }

  private async write(view: View): Promise<void> {
    const began = performance.now();
    const now = Date.now();
    const content = this.encode(view, now);
    this.pauseUntil = performance.now() + Math.max(PAUSE_MS, SHARE * (performance.now() - began));
    const bytes = await this.seal.seal(content);
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    if (!this.tidied) await this.tidy();
    await writeFileAtomically(this.path, bytes, { mode: 0o600 });
    this.savedAt = now;
  }

  private encode(view: View, savedAt: number): Buffer {
    const { revision, token: resume_token } = view;
    const head: Head = { saved_at: savedAt, revision: String(revision), resume_token, agents: this.agents };
    const text = Buffer.from(JSON.stringify(head));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(text.length);
    return Buffer.concat([length, text, ConfigChanges.encode(view.toMessage()).finish()]);
  }

  /** Takes away what processes that were killed have left half-written. */
  private async tidy(): Promise<void> {
    this.tidied = true;
    const directory = dirname(this.path);
    const base = basename(this.path);
    const isLeft = (name: string) => name.startsWith(base) && TEMPORARY_SUFFIX.test(name.slice(base.length));
    for (const name of (await readdir(directory)).filter(isLeft)) {
      const path = join(directory, name);
      // Another process may tidy the same directory.
      const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }));
      if (Date.now() - mtimeMs > ABANDONED_MS) await rm(path, { force: true });
    }
  }
}

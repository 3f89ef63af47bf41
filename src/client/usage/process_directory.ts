import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { REMOVED_PREFIX, removeDirectory, syncDirectory } from '../../atomic_file.js';
import { claimDirectory, type HeldClaim, hasClaim } from '../../directory_claim.js';
import { errorCode } from '../../error_properties.js';
import { Segment } from './segment.js';

const LOCK = '.lock';
const PROCESS_DIRECTORY = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const SEGMENT = /^\d{8}\.usage$/;
/** A directory that is younger and has neither a segment nor a claim may be one that its process is about to claim. */
const YOUNG_MS = 60_000;
/** Directories that one scan examines. */
const MAX_SCANNED = 1000;

/** The segments of one process, which this process holds: its own, or those of a process that has ended. */
export class ProcessDirectory {
  readonly segments = new Set<Segment>();
  private number = 0;

  private constructor(
    private readonly path: string,
    private readonly claim: HeldClaim,
  ) {}

  /** Creates a directory for this process, and the directory that contains it. */
  static async create(base: string): Promise<ProcessDirectory> {
    await mkdir(base, { recursive: true, mode: 0o700 });
    const path = join(base, randomUUID());
    await mkdir(path, { mode: 0o700 });
    await mkdir(join(path, LOCK), { mode: 0o700 });
    await syncDirectory(base);
    const claim = await claimDirectory(join(path, LOCK));
    if ('rival' in claim) throw new Error(`process ${claim.rival.pid} has taken ${path} over`);
    return new ProcessDirectory(path, claim);
  }

  /** Takes over the directories of processes that have ended. @param isHeld whether this client already holds one. */
  static async adoptAll(base: string, isHeld: (path: string) => boolean): Promise<ProcessDirectory[]> {
    const entries = await readdir(base, { withFileTypes: true }).catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return [];
      throw error;
    });
    const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
    await removeRest(base, names);
    const adopted: ProcessDirectory[] = [];
    for (const name of names.filter((one) => PROCESS_DIRECTORY.test(one)).slice(0, MAX_SCANNED)) {
      const path = join(base, name);
      // Another process can adopt and delete the directory meanwhile.
      const directory = isHeld(path) ? undefined : await ProcessDirectory.adopt(path).catch(() => undefined);
      if (directory) adopted.push(directory);
    }
    return adopted;
  }

  /** Undefined if the process is alive, or left nothing. */
  private static async adopt(path: string): Promise<ProcessDirectory | undefined> {
    if (await isUnclaimed(path)) return undefined;
    await mkdir(join(path, LOCK), { mode: 0o700 }).catch(() => undefined);
    const claim = await claimDirectory(join(path, LOCK));
    if ('rival' in claim) return undefined;
    const directory = new ProcessDirectory(path, claim);
    // Listed again, because another process may have delivered and deleted some before it ended.
    for (const name of (await readdir(path)).filter((one) => SEGMENT.test(one)).sort()) {
      const file = join(path, name);
      directory.segments.add(Segment.adopted(file, (await stat(file)).size));
    }
    if (directory.segments.size > 0) return directory;
    await directory.release();
    return undefined;
  }

  has(path: string): boolean {
    return this.path === path;
  }

  async createSegment(isSpilled: boolean): Promise<Segment> {
    const name = `${String(++this.number).padStart(8, '0')}.usage`;
    const segment = await Segment.create(join(this.path, name), isSpilled);
    try {
      await syncDirectory(this.path);
    } catch (error) {
      await segment.remove().catch(() => undefined);
      throw error;
    }
    this.segments.add(segment);
    return segment;
  }

  /** Gives the directory up: removes it if it is empty, else another process can adopt it. */
  async release(): Promise<void> {
    for (const segment of this.segments) await segment.seal();
    if (this.segments.size === 0) await this.removeDirectory().catch(() => undefined);
    await this.claim.release();
  }

  private async removeDirectory(): Promise<void> {
    // Files that are not from a spool stay.
    if ((await readdir(this.path)).every((name) => name === LOCK)) await removeDirectory(this.path);
  }
}

/** Removes what processes have left that were killed while they removed their directory. */
async function removeRest(base: string, names: readonly string[]): Promise<void> {
  const isRest = (name: string) =>
    name.startsWith(REMOVED_PREFIX) && PROCESS_DIRECTORY.test(name.slice(REMOVED_PREFIX.length));
  for (const name of names.filter(isRest).slice(0, MAX_SCANNED))
    await rm(join(base, name), { recursive: true, force: true }).catch(() => undefined);
}

/** Whether a directory is empty and can belong to a process that is about to claim it. */
async function isUnclaimed(path: string): Promise<boolean> {
  const isEmpty = !(await readdir(path)).some((name) => SEGMENT.test(name));
  if (!isEmpty || (await hasClaim(join(path, LOCK)))) return false;
  return Date.now() - (await stat(path)).mtimeMs < YOUNG_MS;
}

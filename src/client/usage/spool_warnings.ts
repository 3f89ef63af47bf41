import { errorCode, errorMessage } from '../../error_properties.js';
import type { Clock } from '../runtime/clock.js';
import type { ClientWarning, Warn } from '../warning.js';

/** The minimum time between two warnings of the same kind. */
const REPEAT_MS = 10 * 60 * 1000;

/** Emits the warnings of the spool, each kind at most once per interval. */
export class SpoolWarnings {
  private readonly reportedAt = new Map<string, number>();

  constructor(
    private readonly warn: Warn,
    private readonly clock: Clock,
    private readonly directory: string | undefined,
  ) {}

  /** Reports that the directory cannot be used. @param isFull the directory has reached its limit. */
  diskFailed(error: unknown, isFull = false): void {
    const isNoSpace = isFull || ['ENOSPC', 'EDQUOT'].includes(errorCode(error) ?? '');
    const remedy = isFull
      ? 'raise usage.maxDiskBytes if the service will be unavailable for longer'
      : 'correct the directory, or set another one in usage.directory';
    const text =
      `Usage cannot be stored in ${this.directory}: ${errorMessage(error)}. It is kept only in memory and is lost if the ` +
      `process ends: ${remedy}`;
    this.once(isNoSpace ? 'full' : 'disk', 'USAGE_SPOOL_FAILED', text, error);
  }

  /** Reports that attempts are lost. @param kind identifies the reason. */
  lost(kind: string, text: string): void {
    this.once(kind, 'USAGE_LOST', `Usage is lost: ${text}`, undefined);
  }

  /** Reports that the service does not store usage. */
  notRecorded(kind: string, text: string, cause: unknown): void {
    this.once(kind, 'USAGE_NOT_RECORDED', text, cause);
  }

  private once(kind: string, warning: ClientWarning['kind'], text: string, cause: unknown): void {
    const now = this.clock.now();
    const before = this.reportedAt.get(kind);
    if (before !== undefined && now - before < REPEAT_MS) return;
    // Error messages can contain changing values, so the map is bounded.
    if (this.reportedAt.size >= 100) this.reportedAt.clear();
    this.reportedAt.set(kind, now);
    this.warn(warning, text, cause);
  }
}

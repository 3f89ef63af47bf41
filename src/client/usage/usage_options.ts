import { limits } from '../../limits.js';

/** Options for the usage reports of a client. */
export interface UsageOptions {
  /**
   * The directory for attempts that the service has not yet acknowledged, so that they survive the end of the process.
   * The client creates it with permissions for its owner only. Processes can share a directory if they use the same
   * service and may record the same agents. `false`: attempts are kept only in memory. Default: the path of `cache`
   * with the suffix `.usage`; without `cache`, only in memory.
   */
  readonly directory?: string | false | undefined;
  /** Maximum number of attempts in memory, 1 000 to 1 000 000. One takes about 1 KiB. Default: 10 000. */
  readonly maxMemoryRecords?: number | undefined;
  /**
   * Maximum bytes of the attempts on disk, including files of ended processes that this process sends, 1 MiB to 4 GiB.
   * Default: 67 108 864 (64 MiB).
   */
  readonly maxDiskBytes?: number | undefined;
  /** How long `close()` waits until the service has acknowledged all attempts, 0 to 60 000 ms. Default: 2 000. */
  readonly closeMs?: number | undefined;
}

/** The options of the spool with their defaults. */
export interface SpoolSettings {
  readonly directory: string | undefined;
  readonly maxMemoryRecords: number;
  readonly maxDiskBytes: number;
  readonly closeMs: number;
}

/**
 * Applies the defaults. Returns undefined if usage is not recorded. Throws a TypeError for invalid options.
 *
 * @param cachePath the path of the cache file.
 */
export function usageSettings(
  options: false | UsageOptions = {},
  cachePath: string | undefined,
): SpoolSettings | undefined {
  if (options === false) return undefined;
  if (typeof options !== 'object' || options === null) throw new TypeError('usage must be false or an object');
  const { directory = cachePath === undefined ? false : `${cachePath}.usage` } = options;
  if (directory !== false && (typeof directory !== 'string' || directory === '' || directory.includes('\0')))
    throw new TypeError('usage.directory must be the name of a directory, or false');
  const { maxMemoryRecords = limits.defaultSpoolRecords, maxDiskBytes = limits.defaultSpoolBytes } = options;
  const { closeMs = limits.defaultSpoolCloseMs } = options;
  checkRange('maxMemoryRecords', maxMemoryRecords, limits.spoolRecords);
  checkRange('maxDiskBytes', maxDiskBytes, limits.spoolBytes);
  checkRange('closeMs', closeMs, limits.spoolCloseMs);
  return { directory: directory || undefined, maxMemoryRecords, maxDiskBytes, closeMs };
}

function checkRange(name: string, value: number, { min, max }: { readonly min: number; readonly max: number }): void {
  if (!Number.isInteger(value) || value < min || value > max)
    throw new TypeError(`usage.${name} must be a whole number of ${min} to ${max}, not ${String(value)}`);
}

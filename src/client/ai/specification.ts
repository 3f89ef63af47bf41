import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Specification } from './sdk_types.js';

/**
 * The version of the model interface that the installed AI SDK expects: V4 with @ai-sdk/provider 4, which `ai` 7 uses, else
 * V3, which every `ai` from 6 on accepts. It must be known before a package is imported, because `ai` reads it
 * synchronously. The package is looked up from the main script, then from the working directory.
 *
 * @param bases files or directories from which to look the package up.
 */
export function specificationFrom(bases: readonly string[]): Specification {
  for (const base of bases) {
    const version = providerVersion(base);
    if (version !== undefined) return Number.parseInt(version, 10) >= 4 ? 'v4' : 'v3';
  }
  return 'v3';
}

/** The version of @ai-sdk/provider that `ai` uses, or that is installed without `ai`. */
function providerVersion(base: string): string | undefined {
  for (const steps of [['ai', '@ai-sdk/provider'], ['@ai-sdk/provider']]) {
    try {
      const file = steps.reduce((from, name) => createRequire(from).resolve(`${name}/package.json`), base);
      return JSON.parse(readFileSync(file, 'utf8')).version;
    } catch {
      // It is not installed there.
    }
  }
  return undefined;
}

let installed: Specification | undefined;

/** The version for this process. */
export function installedSpecification(): Specification {
  const main = process.argv[1];
  installed ??= specificationFrom([...(main === undefined ? [] : [main]), join(process.cwd(), 'package.json')]);
  return installed;
}

import { SettingsError } from '../config.js';
import { describeError } from '../log.js';
import { StartError } from '../main.js';
import { DirectoryInUseError } from '../store/embedded/directory_lock.js';
import { databaseFailure } from '../store/failure.js';
import { MigrationLockTimeoutError, SchemaMismatchError } from '../store/migrate.js';

const EXPECTED = [SettingsError, StartError, DirectoryInUseError, SchemaMismatchError, MigrationLockTimeoutError];

/** Ends a command that failed: one line for each thing that is wrong, no stack for what a person can put right. */
export function fail(error: unknown): never {
  process.stderr.write(`${explain(error)}\n`);
  process.exit(1);
}

function explain(error: unknown): string {
  const known = databaseFailure(error);
  if (EXPECTED.some((type) => known instanceof type) || known !== error)
    return (known as Error).message
      .split('\n')
      .map((line) => `agentllm: ${line}`)
      .join('\n');
  return `agentllm: ${error instanceof Error ? error.message : String(error)}\n${JSON.stringify(describeError(error), null, 2)}`;
}

import { parseDatabaseUrl } from '../../domain/database_url.js';
import { ServiceError, StartError } from '../../errors.js';
import { describeError } from '../../log.js';
import { connectionTargetOf } from '../../store/connection.js';
import { knownCauseOf } from '../../store/connection_failure.js';
import { DataDirectoryError } from '../../store/embedded/data_directory.js';
import { DirectoryInUseError } from '../../store/embedded/directory_lock.js';
import { EngineOpenError } from '../../store/embedded/engine.js';
import { databaseFailure } from '../../store/failure.js';
import { SchemaMismatchError } from '../../store/maintenance/migrate.js';
import { MigrationLockTimeoutError } from '../../store/maintenance/migration_lock.js';

/** Errors that an operator can correct; their messages explain how. */
const OPERATOR_ERRORS = [
  StartError,
  DataDirectoryError,
  DirectoryInUseError,
  EngineOpenError,
  SchemaMismatchError,
  MigrationLockTimeoutError,
];

/** Ends a failed command with exit code 1. Prints one line for each problem; only unexpected errors have a stack. */
export function fail(error: unknown): never {
  process.stderr.write(`${explain(error)}\n`);
  process.exit(1);
}

/** The text of an error for the terminal. */
export function explain(error: unknown): string {
  const known = databaseFailure(error);
  if (OPERATOR_ERRORS.some((type) => known instanceof type) || known !== error)
    return (causeInDatabase(known) ?? (known as Error).message)
      .split('\n')
      .map((line) => `agentllm: ${line}`)
      .join('\n');
  // Unexpected errors are described as in the log, because the message of a database error may hold stored data.
  return `agentllm: failed unexpectedly\n${JSON.stringify(describeError(error), null, 2)}`;
}

/** Why the database of DATABASE_URL cannot be used, if that is the cause of the failure. */
function causeInDatabase(error: unknown): string | undefined {
  const url = process.env['DATABASE_URL'];
  if (!url || !(error instanceof ServiceError) || error.reason !== 'DATABASE_UNAVAILABLE') return undefined;
  const cause = knownCauseOf(error.cause, connectionTargetOf(parseDatabaseUrl(url)));
  return cause && `DATABASE_URL: ${cause}`;
}

import { parseDatabaseUrl } from '../../domain/database_url.js';
import { ServiceError, StartError } from '../../errors.js';
import { describeError } from '../../log.js';
import { attemptOf } from '../../store/connection.js';
import { knownCauseOf } from '../../store/connection_failure.js';
import { DataDirectoryError } from '../../store/embedded/data_directory.js';
import { DirectoryInUseError } from '../../store/embedded/directory_lock.js';
import { EngineOpenError } from '../../store/embedded/engine.js';
import { databaseFailure } from '../../store/failure.js';
import { MigrationLockTimeoutError, SchemaMismatchError } from '../../store/maintenance/migrate.js';

/** What a person can put right; their messages say how. */
const OPERATOR_ERRORS = [
  StartError,
  DataDirectoryError,
  DirectoryInUseError,
  EngineOpenError,
  SchemaMismatchError,
  MigrationLockTimeoutError,
];

/** Ends a command that failed: one line for each thing that is wrong, no stack for what a person can put right. */
export function fail(error: unknown): never {
  process.stderr.write(`${explain(error)}\n`);
  process.exit(1);
}

/** The lines that a person reads of an error. */
export function explain(error: unknown): string {
  const known = databaseFailure(error);
  if (OPERATOR_ERRORS.some((type) => known instanceof type) || known !== error)
    return (causeInDatabase(known) ?? (known as Error).message)
      .split('\n')
      .map((line) => `agentllm: ${line}`)
      .join('\n');
  // A fault of ours: described as the log does, because the message of a database error may hold what people stored.
  return `agentllm: failed unexpectedly\n${JSON.stringify(describeError(error), null, 2)}`;
}

/** Why the database of this environment cannot be used, where that is why a command failed. */
function causeInDatabase(error: unknown): string | undefined {
  const url = process.env['DATABASE_URL'];
  if (!url || !(error instanceof ServiceError) || error.reason !== 'DATABASE_UNAVAILABLE') return undefined;
  const cause = knownCauseOf(error.cause, attemptOf(parseDatabaseUrl(url)));
  return cause && `DATABASE_URL: ${cause}`;
}

/** A package that a hop needs is not installed. */
export class MissingPackageError extends Error {
  override readonly name = 'MissingPackageError';

  constructor(
    readonly packageName: string,
    readonly installCommand: string,
    cause: unknown,
  ) {
    super(`The package ${packageName} is not installed; run: ${installCommand}`, { cause });
  }
}

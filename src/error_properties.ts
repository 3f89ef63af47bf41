/*
 * The properties of a caught error, whose type is unknown.
 */

/** The code from the operating system or the database; undefined if there is none. */
export function errorCode(error: unknown): string | undefined {
  const { code } = (error ?? {}) as { readonly code?: unknown };
  return typeof code === 'string' ? code : undefined;
}

export const errorMessage = (error: unknown): string => (error instanceof Error ? error.message : String(error));

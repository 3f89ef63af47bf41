import { ServiceError, type Violation } from './errors.js';
import { limits } from './limits.js';

/**
 * Collects the problems of a request, so that one error reports all of them. It keeps the first `limits.listedProblems`
 * and counts the rest, so that a request with very many problems costs no more than one with few.
 */
export class Problems {
  private readonly violations: Violation[] = [];
  private count = 0;

  /**
   * @param description a function if the text is expensive to build: it is called only for a problem that is listed.
   */
  add(field: string, description: string | (() => string) | undefined): void {
    if (!description) return;
    this.count++;
    if (this.violations.length >= limits.listedProblems) return;
    this.violations.push({ field, description: typeof description === 'string' ? description : description() });
  }

  addAll(violations: readonly Violation[]): void {
    for (const { field, description } of violations) this.add(field, description);
  }

  get any(): boolean {
    return this.count > 0;
  }

  throwIfAny(): void {
    if (this.any) throw invalidFields(this.violations, this.count);
  }
}

/** A message of more than this many characters lists no further problem. */
const LISTED_CHARACTERS = 500;

/**
 * Makes one error of the problems of a request. Its message has the first problems and the number of the rest.
 * @param count the number of all problems, if `violations` has only some of them.
 */
export function invalidFields(violations: readonly Violation[], count = violations.length): ServiceError {
  const listed: string[] = [];
  let length = 0;
  for (const { field, description } of violations) {
    if (length > LISTED_CHARACTERS) break;
    listed.push(`${field}: ${description}`);
    length += field.length + description.length;
  }
  const more = count > listed.length ? [`and ${count - listed.length} more`] : [];
  const text = count === 1 ? listed[0] : `The request has ${count} problems: ${[...listed, ...more].join('; ')}`;
  return ServiceError.of('INVALID_FIELDS', { violations: text ?? '' }, { violations, problemCount: count });
}

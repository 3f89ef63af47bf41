import { limits } from '../../limits.js';
import { codePoints } from '../text.js';

/**
 * The reason why a text cannot be a subject; undefined if it can. A lone surrogate is encoded as U+FFFD, as in
 * messages.
 */
export function subjectProblem(subject: string): string | undefined {
  if (subject === '') return 'must not be empty';
  if (subject.includes('\0')) return 'must not contain a NUL character';
  if (subject.length <= limits.subject) return undefined;
  const length = codePoints(subject);
  return length > limits.subject ? `must have at most ${limits.subject} characters, not ${length}` : undefined;
}

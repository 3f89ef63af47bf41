import { limits } from '../../limits.js';
import { codePoints } from '../text.js';

/** Why a text cannot be a subject, or undefined. A lone surrogate counts as U+FFFD, as on the wire. */
export function subjectProblem(subject: string): string | undefined {
  if (subject === '') return 'must not be empty';
  if (subject.includes('\0')) return 'must not contain a NUL character';
  if (subject.length <= limits.subject) return undefined;
  const length = codePoints(subject);
  return length > limits.subject ? `must have at most ${limits.subject} characters, not ${length}` : undefined;
}

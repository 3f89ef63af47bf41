import { describe, expect, it } from 'vitest';
import { subjectProblem } from '../../../src/domain/experiments/subject.js';

describe('subjectProblem', () => {
  it('accepts every text of 1 to 255 characters that PostgreSQL can store', () => {
    for (const subject of ['a', 'x'.repeat(255), '😀'.repeat(255), ' run 7\n', '\ud800'])
      expect(subjectProblem(subject), subject).toBeUndefined();
  });

  it('rejects an empty text, a NUL and too many characters', () => {
    expect(subjectProblem('')).toBe('must not be empty');
    expect(subjectProblem('a\0b')).toBe('must not contain a NUL character');
    expect(subjectProblem('😀'.repeat(256))).toBe('must have at most 255 characters, not 256');
  });
});

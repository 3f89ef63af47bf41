import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { scaled } from '../../../src/domain/price_import/decimal.js';

describe('scaled', () => {
  it.each([
    ['1.25e-06', 12, 1_250_000n],
    ['1.25E-6', 12, 1_250_000n],
    ['0.00000125', 12, 1_250_000n],
    ['1e-07', 12, 100_000n],
    ['1e-12', 12, 1n],
    ['10e-13', 12, 1n],
    ['1', 12, 1_000_000_000_000n],
    ['0', 12, 0n],
    ['0.0', 6, 0n],
    ['-0', 6, 0n],
    ['0e999', 6, 0n],
    ['2.5', 6, 2_500_000n],
    ['0.000001', 6, 1n],
    ['3.000000000000000000000', 6, 3_000_000n],
    ['128000', 0, 128_000n],
    ['1.28e5', 0, 128_000n],
  ])('converts %s with %i places exactly', (text, places, expected) => {
    expect(scaled(text, places)).toBe(expected);
  });

  it.each([
    ['1.5000000000000002e-06', 12, 'inexact'],
    ['1e-13', 12, 'inexact'],
    ['0.0000001', 6, 'inexact'],
    ['1e-999', 12, 'inexact'],
    ['128000.5', 0, 'inexact'],
    ['-1e-06', 12, 'negative'],
    ['-0.5', 6, 'negative'],
    ['1e9999', 12, 'unreadable'],
    ['9'.repeat(21), 12, 'unreadable'],
    [`0.${'0'.repeat(40)}1`, 12, 'unreadable'],
    ['NaN', 12, 'unreadable'],
    ['', 12, 'unreadable'],
    ['0x10', 12, 'unreadable'],
  ])('refuses %s with %i places as %s', (text, places, problem) => {
    expect(scaled(text, places)).toBe(problem);
  });

  it('gives back every rate that a decimal or an exponent can write', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 10n ** 12n }), fc.integer({ min: -12, max: 12 }), (rate, exponent) => {
        const shifted = `${rate}e${exponent - 12}`;
        const digits = String(rate).padStart(13, '0');
        const written = `${digits.slice(0, -12)}.${digits.slice(-12)}`;
        expect(scaled(written, 12)).toBe(rate);
        if (exponent >= 0) expect(scaled(shifted, 12)).toBe(rate * 10n ** BigInt(exponent));
      }),
    );
  });
});

/** The digits and the exponent of a number in JSON; longer numbers are not rates. */
const NUMBER = /^(-?)(\d{1,20})(?:\.(\d{1,40}))?(?:[eE]([+-]?\d{1,3}))?$/;

/** The reason why a number of a file is not a whole number of the unit. */
export type DecimalProblem = 'negative' | 'inexact' | 'unreadable';

/**
 * Multiplies a decimal number by a power of ten without rounding.
 * @param text a number as JSON writes it, such as `1.25e-06`.
 * @param places the power of ten, 12 for USD per token in micro-USD per million tokens.
 */
export function scaled(text: string, places: number): bigint | DecimalProblem {
  const [, sign, whole, fraction = '', exponent = '0'] = NUMBER.exec(text) ?? [];
  if (whole === undefined) return 'unreadable';
  const digits = (whole + fraction).replace(/^0+/, '');
  if (digits === '') return 0n;
  if (sign === '-') return 'negative';
  const shift = Number(exponent) + places - fraction.length;
  if (shift >= 0) return BigInt(digits) * 10n ** BigInt(shift);
  const kept = digits.slice(0, shift);
  if (!/^0+$/.test(digits.slice(kept.length)) || kept === '') return 'inexact';
  return BigInt(kept);
}

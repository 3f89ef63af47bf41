/** A sequence of random numbers that depends only on its seed (sfc32 of PractRand). */
export class Random {
  private a: number;
  private b = 0x9e3779b9 | 0;
  private c = 0x243f6a88 | 0;
  private counter = 1;
  private spare: number | undefined;

  constructor(seed: number) {
    this.a = seed | 0;
    for (let at = 0; at < 12; at++) this.uniform();
  }

  /** At least 0 and less than 1. */
  uniform(): number {
    const sum = (((this.a + this.b) | 0) + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  }

  /** A whole number that is less than `count`. */
  below(count: number): number {
    return Math.floor(this.uniform() * count);
  }

  /** From the standard normal distribution (Box and Muller). */
  normal(): number {
    if (this.spare !== undefined) {
      const { spare } = this;
      this.spare = undefined;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

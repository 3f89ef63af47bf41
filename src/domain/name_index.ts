/** A name in normalization form C, in which new names are stored, so that names that look the same are the same. */
export const normalName = (name: string): string => name.normalize('NFC');

/** Rows by name. An exact match takes precedence; otherwise a name in another Unicode normalization form matches. */
export class NameIndex<Row> {
  private readonly exact = new Map<string, Row>();
  /** Stored names that are not in form C, because they predate normalization, by their form C. */
  private readonly unnormalized = new Map<string, string>();

  get(name: string): Row | undefined {
    const row = this.exact.get(name);
    if (row !== undefined) return row;
    const normal = normalName(name);
    return this.exact.get(normal) ?? this.exact.get(this.unnormalized.get(normal) ?? name);
  }

  set(name: string, row: Row): void {
    this.exact.set(name, row);
    const normal = normalName(name);
    if (normal !== name) this.unnormalized.set(normal, name);
  }

  delete(name: string): void {
    this.exact.delete(name);
    const normal = normalName(name);
    if (this.unnormalized.get(normal) === name) this.unnormalized.delete(normal);
  }

  keys(): Iterable<string> {
    return this.exact.keys();
  }
}

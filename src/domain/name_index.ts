/** A name in normalization form C: the form in which new names are stored, so that one word is one name. */
export const normalName = (name: string): string => name.normalize('NFC');

/** Rows by name. A name is also found in another Unicode form than its own; the exact one comes first. */
export class NameIndex<Row> {
  private readonly exact = new Map<string, Row>();
  /** Names that are not in form C, from before names were normalized, by what they are in it. */
  private readonly others = new Map<string, string>();

  get(name: string): Row | undefined {
    const row = this.exact.get(name);
    if (row !== undefined) return row;
    const normal = normalName(name);
    return this.exact.get(normal) ?? this.exact.get(this.others.get(normal) ?? name);
  }

  set(name: string, row: Row): void {
    this.exact.set(name, row);
    const normal = normalName(name);
    if (normal !== name) this.others.set(normal, name);
  }

  delete(name: string): void {
    this.exact.delete(name);
    const normal = normalName(name);
    if (this.others.get(normal) === name) this.others.delete(normal);
  }

  keys(): Iterable<string> {
    return this.exact.keys();
  }
}

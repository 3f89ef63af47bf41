/** A provider and a model of the catalogue, by their canonical names. */
export interface SeedModel {
  readonly provider: string;
  readonly name: string;
}

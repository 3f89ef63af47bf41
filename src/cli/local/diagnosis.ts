/** One thing that the doctor has looked at. */
export interface Diagnosis {
  readonly area:
    | 'settings'
    | 'tls'
    | 'service'
    | 'access'
    | 'database'
    | 'schema'
    | 'clock'
    | 'keys'
    | 'configs'
    | 'providers';
  /** `fail`: something does not work. `warn`: it works, and somebody should know. */
  readonly verdict: 'ok' | 'warn' | 'fail';
  readonly finding: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** Makes diagnoses of one area. */
export const diagnosisFactory =
  (area: Diagnosis['area']) =>
  (verdict: Diagnosis['verdict'], finding: string, remedy?: string): Diagnosis => ({
    area,
    verdict,
    finding,
    ...(remedy && { remedy }),
  });

/** How it looks. */
export interface ExaminationOptions {
  /** Whether providers are asked. */
  readonly checkProviders: boolean;
  /** Whether this is the service that has the database, with an environment of its own. */
  readonly inService: boolean;
}

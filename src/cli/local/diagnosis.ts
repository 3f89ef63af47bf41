/** The result of one check of `agentllm doctor`. */
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
  /** `fail`: something does not work. `warn`: it works, but needs attention. */
  readonly verdict: 'ok' | 'warn' | 'fail';
  readonly finding: string;
  /** How to correct it. */
  readonly remedy?: string;
}

/** Returns a function that creates the diagnoses of an area. */
export const diagnosisFactory =
  (area: Diagnosis['area']) =>
  (verdict: Diagnosis['verdict'], finding: string, remedy?: string): Diagnosis => ({
    area,
    verdict,
    finding,
    ...(remedy && { remedy }),
  });

/** The options of an examination. */
export interface ExaminationOptions {
  /** Whether the providers are called. */
  readonly checkProviders: boolean;
  /** Whether the examination runs in the service, which has its own environment. */
  readonly inService: boolean;
}

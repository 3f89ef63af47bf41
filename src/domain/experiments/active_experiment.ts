import type { Experiment, Variant } from '../rows.js';
import { Assignment, UNASSIGNED } from './assignment.js';
import { isActive } from './experiment_index.js';

/** The part of a variant that resolution reads. */
export type VariantSettings = Pick<Variant, 'name' | 'control' | 'config_id' | 'overrides' | 'buckets'>;

/** The part of an experiment that resolution reads. */
export interface ExperimentSettings extends Pick<Experiment, 'name' | 'salt' | 'state' | 'revision'> {
  readonly variants: readonly VariantSettings[];
}

/** The variant whose settings a call has. */
export interface ChosenVariant {
  readonly experiment: ExperimentSettings;
  readonly variant: VariantSettings;
  /** Whether calls count for the experiment: a subject is assigned. */
  readonly counted: boolean;
  /** Position in the `choices` of the experiment. */
  readonly position: number;
}

/** An experiment that is running or paused: chooses the variant of a call. */
export class ActiveExperiment {
  /** First the control for calls that do not count, then each variant for calls that do. */
  readonly choices: readonly ChosenVariant[];
  private readonly assignment: Assignment;
  private readonly isRunning: boolean;

  private constructor(experiment: ExperimentSettings, control: VariantSettings) {
    const { variants, salt, state } = experiment;
    const chosen = [{ variant: control, counted: false }, ...variants.map((variant) => ({ variant, counted: true }))];
    this.choices = chosen.map((one, position) => ({ experiment, position, ...one }));
    this.assignment = new Assignment(
      salt,
      variants.map(({ buckets: ranges }) => ({ ranges })),
    );
    this.isRunning = state === 'EXPERIMENT_STATE_RUNNING';
  }

  /** The experiment that has an effect on an agent: an agent has at most one that is running or paused. */
  static among(experiments: readonly ExperimentSettings[]): ActiveExperiment | undefined {
    const experiment = experiments.find(isActive);
    const control = experiment?.variants.find((variant) => variant.control);
    return experiment && control && new ActiveExperiment(experiment, control);
  }

  /** The variant of a call. The control, if there is no subject or the experiment is paused. Allocates nothing. */
  choose(subject: string | undefined): ChosenVariant {
    const owner = subject === undefined || !this.isRunning ? UNASSIGNED : this.assignment.variantOf(subject);
    return this.choices[owner === UNASSIGNED ? 0 : owner + 1] as ChosenVariant;
  }

  /** Whether a variant names a config as its base config. */
  isBase(configId: number): boolean {
    return this.choices.some(({ variant }) => variant.config_id === configId);
  }

  /** A subject with its bucket. */
  assigned(subject: string): { readonly subject: string; readonly bucket: number } {
    return { subject, bucket: this.assignment.bucketOf(subject) };
  }
}

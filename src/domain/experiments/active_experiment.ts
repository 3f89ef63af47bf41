import type { Experiment, Variant } from '../rows.js';
import { Assignment, UNASSIGNED } from './assignment.js';
import { isActive } from './experiment_index.js';

/** The fields of a variant that a resolution uses. */
export type VariantSettings = Pick<Variant, 'name' | 'control' | 'config_id' | 'overrides' | 'buckets'>;

/** The fields of an experiment that a resolution uses. */
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
  /** The control for calls that do not count, and then each variant for calls that count. */
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

  /** The running or paused experiment of an agent; an agent has at most one. */
  static among(experiments: readonly ExperimentSettings[]): ActiveExperiment | undefined {
    const experiment = experiments.find(isActive);
    const control = experiment?.variants.find((variant) => variant.control);
    return experiment && control && new ActiveExperiment(experiment, control);
  }

  /** The variant of a call: the control if there is no subject or the experiment is paused. Allocates no memory. */
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

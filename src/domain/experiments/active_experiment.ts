import type { ExperimentState } from '../../../gen/ts/agentllm/v1/experiment.js';
import type { ExtraParams } from '../rows.js';
import { Assignment, type BucketRange, UNASSIGNED } from './assignment.js';

/** The settings in which a variant differs from its base config. */
export interface VariantOverrides {
  readonly provider?: string;
  readonly model_name?: string;
  readonly temperature?: number;
  readonly max_tokens?: number;
  readonly top_p?: number;
  readonly extra_params?: ExtraParams;
}

/** The part of a variant that resolution reads. */
export interface VariantSettings {
  readonly name: string;
  readonly control: boolean;
  /** The base config; null: the primary config at the time of the resolution. */
  readonly config_id: number | null;
  readonly overrides: VariantOverrides;
  readonly buckets: readonly BucketRange[];
}

/** The part of an experiment that resolution reads. */
export interface ExperimentSettings {
  readonly name: string;
  readonly salt: string;
  readonly state: ExperimentState;
  readonly revision: number;
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

  /** The bucket of a subject that is assigned. */
  bucketOf(subject: string): number {
    return this.assignment.bucketOf(subject);
  }
}

/** Whether an experiment has an effect on the calls of its agent. */
const isActive = ({ state }: ExperimentSettings): boolean =>
  state === 'EXPERIMENT_STATE_RUNNING' || state === 'EXPERIMENT_STATE_PAUSED';

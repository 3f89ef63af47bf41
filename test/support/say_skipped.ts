import { spawnSync } from 'node:child_process';

/** Says once, in one line, what a machine without Python cannot test (issue 13). */
export function setup(): void {
  const { status } = spawnSync('python3', ['--version'], { stdio: 'ignore' });
  if (status !== 0)
    console.warn(
      'Without Python 3, npm run test:e2e skips llmock (grades model calls), the request types of OpenAI, scipy (checks statistics), and readers of /openapi.json',
    );
}

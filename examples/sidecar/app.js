/** The application: calls its sidecar as if it were a function. */
import { connect } from 'rpal';

const sidecar = await connect('/tmp/rpal-example.sock');
const answer = sidecar.callSync('greet', Buffer.from(`app ${process.pid}`));
console.log(`app: ${Buffer.from(answer)} (${sidecar.transport})`);
await sidecar.close();

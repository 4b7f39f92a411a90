import java.nio.charset.StandardCharsets;
import java.util.Scanner;

public class Main {
    public static void main(String[] args) {
        String nonce = new Scanner(System.in).nextLine().trim();
        int value = (int) 2166136261L;
        for (byte each : (nonce + "java").getBytes(StandardCharsets.UTF_8)) {
            value = (value ^ each) * 16777619;
        }
        System.out.println(new StringBuilder(nonce).reverse() + String.format(" %08x", value));
    }
}
